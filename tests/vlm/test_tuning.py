"""Exactly what is asked for is trained, in every family, and what was trained is saved and loaded to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.support.families import FAMILIES
from torch import nn

from rbft.errors import ConfigError, StageError
from rbft.vlm.loading import load_model
from rbft.vlm.model_parts import parts_of
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning, load_trained, save_trained, trained_state

# written out by family, so that a family whose names change shows up
PROJECTOR = {
    "qwen2_vl": ("model.visual.merger.",),
    "qwen2_5_vl": ("model.visual.merger.",),
    "qwen3_vl": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    "smolvlm": ("model.connector.",),
    "llava_onevision": ("model.multi_modal_projector.", "model.image_newline"),
    "internvl": ("model.multi_modal_projector.",),
}
VISION = {
    "qwen2_vl": "model.visual.",
    "qwen2_5_vl": "model.visual.",
    "qwen3_vl": "model.visual.",
    "smolvlm": "model.vision_model.",
    "llava_onevision": "model.vision_tower.",
    "internvl": "model.vision_tower.",
}
LAYERS, PROJECTIONS = 2, 7  # of the language models: q, k, v, o, gate, up, down


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def source(family: str, family_folder: Callable[[str], Path]) -> str:
    return str(family_folder(family))


def tuned(source: str, tuning: Tuning) -> nn.Module:
    return tuning.apply(load_model(source, None, "float32", None))


def part(family: str, name: str) -> str:
    if name.startswith(PROJECTOR[family]):
        return "projector"
    return "vision" if name.startswith(VISION[family]) else "language"


def shake(model: nn.Module, seed: int) -> None:
    """Stands for training: what is trained gets other values."""
    generator = torch.Generator().manual_seed(seed)
    for value in trained_state(model).values():
        value.add_(torch.randn(value.shape, generator=generator))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(value, its[name]) for name, value in mine.items())


def test_every_parameter_belongs_to_the_right_part(family, source):
    model = load_model(source, None, "float32", None)
    names = [name for name, _ in model.named_parameters()]
    found = parts_of(model)
    assert {name: found[name] for name in names} == {name: part(family, name) for name in names}
    counts = [sum(part(family, name) == p for name in names) for p in ("language", "projector", "vision")]
    assert all(counts), counts


def test_full_fine_tuning_trains_the_parts_that_are_named(family, source):
    model = load_model(source, None, "float32", None)
    names = [name for name, _ in model.named_parameters()]
    for settings in itertools.product(("frozen", "train"), repeat=3):
        language, projector, vision = settings
        FullFineTuning(language=language, projector=projector, vision=vision).apply(model)
        asked = dict(zip(("language", "projector", "vision"), settings, strict=True))
        expected = {name for name in names if asked[part(family, name)] == "train"}
        assert set(trained_state(model)) == expected, settings


@pytest.mark.parametrize("projector", ["frozen", "train"])
@pytest.mark.parametrize("vision", ["frozen", "train"])
def test_lora_trains_adapters_of_the_language_model_and_the_parts_that_are_named(family, source, projector, vision):
    model = tuned(source, LoRA(rank=4, projector=projector, vision=vision))
    trained = {name.removeprefix("base_model.model.") for name in trained_state(model)}
    adapters = {name for name in trained if "lora_" in name}
    assert len(adapters) == LAYERS * PROJECTIONS * 2
    assert {part(family, name) for name in adapters} == {"language"}
    names = {name.removeprefix("base_model.model.") for name, _ in model.named_parameters()}
    asked = {"language": "frozen", "projector": projector, "vision": vision}
    expected = {name for name in names - adapters if asked[part(family, name)] == "train"}
    assert trained - adapters == expected


def test_a_new_adapter_leaves_the_model_as_it_was(family, source):
    plain, wrapped = load_model(source, None, "float32", None).eval(), tuned(source, LoRA()).eval()
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(wrapped(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("tuning", "files"),
    [
        (LoRA(rank=4), {"adapter_config.json", "adapter_model.safetensors"}),
        (
            LoRA(rank=4, projector="train"),
            {"adapter_config.json", "adapter_model.safetensors", "trained.safetensors"},
        ),
        (FullFineTuning(projector="train"), {"trained.safetensors"}),
        (FullFineTuning(language="frozen", vision="train"), {"trained.safetensors"}),
    ],
    ids=["lora", "lora+projector", "language+projector", "vision"],
)
def test_what_was_trained_is_saved_and_loaded_to_the_bit(source, tmp_path, tuning, files):
    model = tuned(source, tuning)
    shake(model, 1)
    save_trained(model, tmp_path / "deep" / "adapter")
    assert {path.name for path in (tmp_path / "deep" / "adapter").iterdir()} - {"README.md"} == files
    fresh = tuned(source, tuning)
    assert not same(fresh, model)
    load_trained(fresh, tmp_path / "deep" / "adapter")
    assert same(fresh, model)
    assert set(trained_state(fresh)) == set(trained_state(model)), "it can go on training"


def test_peft_alone_can_use_the_adapter(source, tmp_path):
    model = tuned(source, LoRA(rank=4)).eval()
    shake(model, 2)
    save_trained(model, tmp_path)
    assert model.peft_config["default"].inference_mode is False
    again = PeftModel.from_pretrained(load_model(source, None, "float32", None), tmp_path).eval()
    assert again.peft_config["default"].inference_mode is True
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.fixture(scope="module")
def qwen(family_folder: Callable[[str], Path]) -> str:
    return str(family_folder("qwen2_5_vl"))


@pytest.mark.parametrize(
    ("wrote", "reads", "message"),
    [
        (LoRA(rank=4), FullFineTuning(), "weights of another tuning"),
        (FullFineTuning(), LoRA(rank=4), "weights of another tuning"),
        (LoRA(rank=4, projector="train"), LoRA(rank=4), r"weights of another tuning.*merger"),
        (LoRA(rank=4), LoRA(rank=4, projector="train"), r"weights of another tuning.*merger"),
        (LoRA(rank=4), LoRA(rank=8), "was trained with r 4, model.tuning says 8"),
        (FullFineTuning(), FullFineTuning(language="frozen", projector="train"), "weights of another tuning"),
    ],
)
def test_another_tuning_cannot_load_it(qwen, tmp_path, wrote, reads, message):
    save_trained(tuned(qwen, wrote), tmp_path)
    model = tuned(qwen, reads)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(StageError, match=message) as caught:
        load_trained(model, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("tuning", [LoRA(rank=4), FullFineTuning(language="frozen", projector="train")])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 64])
def test_a_damaged_file_is_named(qwen, tmp_path, tuning, damage):
    save_trained(tuned(qwen, tuning), tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StageError, match=rf"{path.name} is damaged .*run the stage that wrote it again"):
        load_trained(tuned(qwen, tuning), tmp_path)


def test_an_empty_or_missing_folder_is_named(qwen, tmp_path):
    model = tuned(qwen, LoRA())
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StageError, match=rf"{folder} holds no trained weights"):
            load_trained(model, folder)


def test_weights_of_another_family_are_refused(qwen, family_folder, tmp_path):
    tuning = FullFineTuning(projector="train")
    save_trained(tuned(str(family_folder("internvl")), tuning), tmp_path)
    with pytest.raises(StageError, match="weights of another tuning"):
        load_trained(tuned(qwen, tuning), tmp_path)


def test_settings_of_lora_are_checked(qwen):
    with pytest.raises(ConfigError, match=r"model\.tuning\.targets: '\(' is no regular expression"):
        LoRA(targets="(")
    for wrong in ({"rank": 0}, {"dropout": 1.0}, {"dropout": -0.1}):
        with pytest.raises(ConfigError, match=r"model\.tuning: rank must be at least 1, and dropout"):
            LoRA(**wrong)
    with pytest.raises(ConfigError, match=r"'.\*nowhere' matches no linear layer; one is named"):
        tuned(qwen, LoRA(targets=".*nowhere"))
    for alpha in (0, -8):
        with pytest.raises(ConfigError, match=rf"model\.tuning\.alpha: {alpha} must be at least 1"):
            LoRA(alpha=alpha)


def test_targets_choose_the_layers(qwen):
    model = tuned(qwen, LoRA(rank=2, targets=r".*language_model\.layers\.1\..*q_proj"))
    assert len(trained_state(model)) == 2
    assert all(".layers.1.self_attn.q_proj.lora_" in name for name in trained_state(model))
    assert sum(value.numel() for value in trained_state(model).values()) == 2 * 64 + 2 * 64


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (".*", "reaches 'model', a Qwen2_5_VLModel; only linear layers get adapters"),
        (".*embed_tokens", "reaches 'model.language_model.embed_tokens', a Embedding"),
        (r".*\.(q_proj|.*norm)", "a Qwen2_5_VLRMSNorm; only linear layers"),
        (r".*\.patch_embed\.proj", "reaches 'model.visual.patch_embed.proj', a Conv3d"),
    ],
)
def test_what_no_adapter_can_be_added_to_is_refused(qwen, targets, message):
    with pytest.raises(ConfigError, match=message):
        tuned(qwen, LoRA(targets=targets))


def test_an_adapter_in_a_head_of_its_own_is_saved_loaded_and_merged(qwen, tmp_path):
    tuning = LoRA(rank=2, targets="lm_head|.*q_proj")
    model = tuned(qwen, tuning).eval()
    for value in trained_state(model).values():
        value.add_(0.02)
    save_trained(model, tmp_path)
    fresh = tuned(qwen, tuning)
    load_trained(fresh, tmp_path)
    assert same(fresh, model)
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(model.merge_and_unload()(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_in_a_head_that_shares_its_weights_is_refused(qwen):
    model = load_model(qwen, None, "float32", None)
    model.lm_head.weight = model.get_input_embeddings().weight
    with pytest.raises(ConfigError, match="reaches the head, which shares its weights with the token embeddings"):
        LoRA(targets="lm_head|.*q_proj").apply(model)


@pytest.mark.parametrize("part", ["projector", "vision"])
def test_a_part_is_trained_whole_or_by_adapters(qwen, part):
    name = {"projector": r".*merger\.mlp\.0", "vision": r".*blocks\.0\.attn\.qkv"}[part]
    assert len(trained_state(tuned(qwen, LoRA(targets=name)))) == 2
    with pytest.raises(ConfigError, match=f"trained whole; leave {part} frozen or its layers out"):
        tuned(qwen, LoRA(targets=name, **{part: "train"}))


@pytest.mark.parametrize("family", ["qwen3_5_moe", "ernie4_5_vl_moe"])
def test_adapters_of_experts_are_saved_loaded_and_merged(family, family_folder, tmp_path):
    source, tuning = str(family_folder(family)), LoRA(rank=2, dropout=0.0, experts="train")
    model = tuned(source, tuning).eval()
    assert any("experts" in name for name in trained_state(model))
    assert not any("conv1d" in name for name in trained_state(model))
    for value in trained_state(model).values():
        value.add_(0.02)
    save_trained(model, tmp_path)
    fresh = tuned(source, tuning)
    load_trained(fresh, tmp_path)
    assert same(fresh, model)
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(model.merge_and_unload()(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)


def test_adapters_of_experts_need_experts_and_no_dropout(qwen, family_folder):
    with pytest.raises(ConfigError, match=r"model\.tuning\.experts: this model has no stacks of experts"):
        tuned(qwen, LoRA(dropout=0.0, experts="train"))
    with pytest.raises(ConfigError, match=r"cannot drop inputs; set model\.tuning\.dropout to 0"):
        tuned(str(family_folder("qwen3_vl_moe")), LoRA(experts="train"))


def test_layers_whose_names_peft_keeps_for_experts_are_left_out_or_refused(family_folder):
    source = str(family_folder("glm4v_moe"))
    said = (
        "8 of 14 linear layers .* the others are named down_proj, gate_proj, up_proj; its 2 stacks of experts get none"
    )
    with pytest.warns(UserWarning, match=said):
        model = tuned(source, LoRA())
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in trained_state(model)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
    with pytest.raises(ConfigError, match="keeps for the experts of this family; leave the layers named down_proj, g"):
        tuned(source, LoRA(targets=r".*\.(q_proj|gate_proj)"))


@pytest.mark.parametrize(("key", "other"), [("lora_alpha", LoRA(rank=4, alpha=8)), ("r", LoRA(rank=2, alpha=32))])
def test_an_adapter_of_another_scale_is_refused(source, tmp_path, key, other):
    save_trained(tuned(source, LoRA(rank=4, alpha=32)), tmp_path)
    with pytest.raises(StageError, match=key):
        load_trained(tuned(source, other), tmp_path)
