"""Upper layers alone: exactly they are trained, gradients end at the first of them, and the settings are checked."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from tests.support.families import FAMILIES, RECIPES
from tests.support.family_parts import Size
from tests.support.models import make_clip
from torch import nn

from rbft.errors import ConfigError, StageError
from rbft.vlm.batch import PromptInputs
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning, load_trained, save_trained, trained_state
from rbft.vlm.upper_layers import first_trained, layers_of

# four layers each, and families whose embeddings, norms or experts are laid out in another way
OTHERS = ("lfm3_vl", "qwen3_5", "ernie4_5_vl_moe", "gemma4")
PROMPT = Prompt("what is it ?")


def bare(family: str) -> nn.Module:
    recipe = RECIPES[family](Size(layers=4) if family in FAMILIES else Size())
    with torch.device("meta"):
        return recipe.model_class(recipe.config)


def numbers(names: set[str]) -> set[int]:
    return {int(found[1]) for name in names if (found := re.search(r"\.layers\.(\d+)\.", name))}


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_only_what_is_above_is_trained(family):
    total = len(layers_of(bare(family)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of experts without adapters
        model = LoRA(rank=2, layers=1).apply(bare(family))
    names = set(trained_state(model))
    assert numbers(names) == {total - 1} == {first_trained(model)} and all("lora_" in name for name in names)
    model = FullFineTuning(layers=0.5).apply(bare(family))
    names = set(trained_state(model))
    upper = set(range(total - -(-total // 2), total))
    assert numbers(names) == upper and first_trained(model) == min(upper)
    stack = r"model\.(language|text)_model\.layers\."
    whole = {name for name, _ in model.named_parameters() if re.match(stack, name) and numbers({name}) & upper}
    assert {name for name in names if numbers({name})} == whole
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    others = {name.rpartition(".")[0].rpartition(".")[2] for name in names if not numbers({name})}
    norm = "embedding_norm" if family == "lfm3_vl" else "norm"
    assert others == ({norm} if tied else {norm, "lm_head"})


@pytest.mark.parametrize("tuning", [LoRA, FullFineTuning])
def test_all_layers_are_trained_where_none_are_named(tuning):
    model = tuning().apply(bare("qwen2_5_vl"))
    assert numbers(set(trained_state(model))) == {0, 1, 2, 3} and first_trained(model) == 0
    every = tuning(layers=4).apply(bare("qwen2_5_vl"))
    assert numbers(set(trained_state(every))) == {0, 1, 2, 3}
    assert len(trained_state(every)) == len(trained_state(model)) - (tuning is FullFineTuning), "no embeddings"


def batch(folder: str) -> tuple[ClipProcessor, list[PromptInputs], list[torch.Tensor]]:
    processor = ClipProcessor(folder)
    prompts = [processor.prompt_inputs(PROMPT, make_clip(number, 4)) for number in range(2)]
    return processor, prompts, [processor.target_ids(PROMPT, text) for text in ("a cat that runs", "a dog")]


def gradients(vlm: VLM, prompts: list[PromptInputs], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    vlm.target_log_probs(prompts, targets)[0].sum().neg().backward()
    return {name: value.grad.clone() for name, value in vlm.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_end_at_the_first_of_them_and_are_the_same_above(family_folder, checkpointing):
    folder = str(family_folder("qwen3_vl"))
    processor, prompts, targets = batch(folder)

    def run(tuning: Tuning) -> tuple[dict[str, torch.Tensor], int]:
        model = load_model(folder, None, "float32", None)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        vlm = VLM(tuning.apply(model), processor.pad_id, processor.end_ids).train()
        kept: dict[int, int] = {}

        def note(value: torch.Tensor) -> torch.Tensor:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            return gradients(vlm, prompts, targets), sum(kept.values())

    every, most = run(FullFineTuning())
    upper, less = run(FullFineTuning(layers=1))
    assert numbers(set(upper)) == {1} and numbers(set(every)) == {0, 1}
    for name, value in upper.items():
        torch.testing.assert_close(value, every[name], rtol=1e-5, atol=1e-6)
    assert checkpointing or less < 0.75 * most, "what is below keeps no activations"


@pytest.mark.parametrize("tuning", [LoRA(rank=2, layers=1), FullFineTuning(layers=1)], ids=lambda t: type(t).__name__)
def test_what_was_trained_is_saved_loaded_and_merged(family_folder, tmp_path, tuning):
    folder = str(family_folder("smolvlm"))
    model = tuning.apply(load_model(folder, None, "float32", None)).eval()
    for value in trained_state(model).values():
        value.add_(0.02)
    save_trained(model, tmp_path)
    fresh = tuning.apply(load_model(folder, None, "float32", None)).eval()
    load_trained(fresh, tmp_path)
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(fresh(input_ids=ids).logits, expected)
        if isinstance(tuning, LoRA):
            torch.testing.assert_close(fresh.merge_and_unload()(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    other = type(tuning)(**({"rank": 2} if isinstance(tuning, LoRA) else {}))
    with pytest.raises(StageError, match="weights of another tuning"):
        load_trained(other.apply(load_model(folder, None, "float32", None)), tmp_path)


@pytest.mark.parametrize("tuning", [LoRA, FullFineTuning])
@pytest.mark.parametrize("layers", [0, -1, 1.5, 0.0, float("nan"), True])
def test_what_is_no_number_of_layers_is_refused(tuning, layers):
    with pytest.raises(ConfigError, match=r"model\.tuning\.layers: .* is neither a whole number of layers"):
        tuning(layers=layers)


@pytest.mark.parametrize(
    ("tuning", "settings", "message"),
    [
        (LoRA, {"vision": "train"}, r"model\.tuning\.vision is to be trained below it"),
        (FullFineTuning, {"projector": "train"}, r"model\.tuning\.projector is to be trained below it"),
        (FullFineTuning, {"language": "frozen"}, r"which model\.tuning\.language freezes"),
    ],
)
def test_settings_that_contradict_it_are_refused(tuning, settings, message):
    with pytest.raises(ConfigError, match=message):
        tuning(layers=2, **settings)


def test_targets_are_looked_for_in_the_upper_layers(family_folder):
    model = LoRA(targets=".*q_proj|lm_head", layers=1).apply(bare("qwen2_5_vl"))
    names = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained_state(model)}
    assert names == {"model.language_model.layers.3.self_attn.q_proj", "lm_head"}
    with pytest.raises(ConfigError, match=r"5 are more than the 4 layers .* set at most 4"):
        LoRA(layers=5).apply(bare("qwen2_5_vl"))
    with pytest.raises(ConfigError, match=r"qkv.* reaches 'model\.visual.*below the upper layers"):
        LoRA(targets=r".*\.(q_proj|qkv)", layers=1).apply(bare("qwen2_5_vl"))
    with pytest.raises(ConfigError, match=r"no linear layer in the upper 2 layers .*layers\.3\."):
        LoRA(targets=r".*layers\.1\..*q_proj", layers=2).apply(bare("qwen2_5_vl"))
