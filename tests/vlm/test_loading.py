"""A model that cannot serve is refused by name, and before its weights are read where that can be known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.families import FAMILIES
from transformers import AutoProcessor, LlamaConfig, LlavaConfig

from rbft.errors import ModelError
from rbft.vlm.loading import load_config, load_end_ids, load_model, load_processor, model_source


@pytest.fixture
def folder(family_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model folder that the test may harm."""
    return Path(shutil.copytree(family_folder("qwen2_5_vl"), tmp_path / "model"))


def load(folder: Path):
    return load_model(str(folder), None, "auto", None)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_in_the_type_asked_for(family, family_folder):
    source = str(family_folder(family))
    assert load_processor(source, None).video_processor is not None
    model = load_model(source, None, "bfloat16", "eager")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"


def test_names_of_models(tmp_path, folder, monkeypatch):
    assert model_source("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert model_source(str(folder)) == str(folder)
    assert Path(model_source("builtin/tiny")).parent.name == "tiny"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert model_source("~/model") == str(folder)
    with pytest.raises(ModelError, match=r"'builtin/big' is unknown; built in: builtin/tiny"):
        model_source("builtin/big")
    for missing in ("./nothing", "/nothing/here", "~/nothing", "checkpoints/run/last"):
        with pytest.raises(ModelError, match=f"no folder {missing}"):
            model_source(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty holds no config\.json"):
        model_source(str(tmp_path / "empty"))


@pytest.mark.parametrize("config", [LlamaConfig(), LlavaConfig()], ids=["text", "images"])
def test_models_that_take_no_video_are_refused_without_their_weights(config, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"is a '{config.model_type}' model, which takes no video"):
        load_processor(str(tmp_path), None)


def test_a_processor_without_video_or_template_is_refused(folder, monkeypatch):
    bare = SimpleNamespace(chat_template="x")
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: bare)
    with pytest.raises(ModelError, match="takes no video: its processor has no part for it"):
        load_processor(str(folder), None)
    monkeypatch.undo()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template; choose an instruction-tuned model"):
        load_processor(str(folder), None)


def test_a_package_that_one_model_needs_is_named(family_folder, monkeypatch):
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(ModelError, match=r"loaded: Package `num2words` is required.*`pip install num2words`\.$"):
        load_processor(str(family_folder("smolvlm")), None)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "unheard_of"}'])
def test_a_configuration_that_cannot_be_read_is_explained(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"cannot be loaded: .*Give a local folder"):
        load_config(str(folder), None)


def test_a_hub_id_that_cannot_be_reached_is_explained():
    with pytest.raises(ModelError, match=r"'nobody/nothing' cannot be loaded"):
        load_config("nobody/nothing", None)


def test_a_missing_weights_file_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded: .*model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not weights" * 9])
def test_damaged_weights_are_refused(folder, damage):
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_missing_weights_are_never_drawn_at_random(folder):
    weights = folder / "model.safetensors"
    state = load_file(weights)
    name = next(key for key in state if "layers.1" in key and key.endswith("q_proj.weight"))
    del state[name]
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first 'model\.language_model\.layers\.1\..*incomplete"):
        load(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 96
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_pickled_weights_are_never_opened(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(folder)


def test_answers_end_where_the_most_specific_file_says(folder):
    config = SimpleNamespace(eos_token_id=None, get_text_config=lambda: SimpleNamespace(eos_token_id=5))
    tokenizer = SimpleNamespace(eos_token_id=6)

    def ends() -> tuple[int, ...]:
        return load_end_ids(str(folder), None, config, tokenizer)

    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 3]}')
    assert ends() == (7, 3)
    (folder / "generation_config.json").unlink()
    assert ends() == (5,)
    config.get_text_config = lambda: SimpleNamespace(eos_token_id=None)
    assert ends() == (6,)
    tokenizer.eos_token_id = None
    with pytest.raises(ModelError, match="names no end-of-text token"):
        ends()
