"""A model that answers otherwise here than in transformers alone is refused when it is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support.families import RECIPES
from tests.support.runs import fit, write_clips, write_experiment

from rbft.errors import ModelError
from rbft.vlm import model as vlm_model
from rbft.vlm import parity
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.parity import require_parity
from rbft.vlm.processing import ClipProcessor

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def nothing_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "_PASSED", set())


def flat_positions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        VLM, "positions", lambda self, rows, visual: torch.arange(rows.ids.shape[1]).expand(3, *rows.ids.shape)
    )


def padding_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(vlm_model, "sees_every_token", lambda config: True)


def first_token_lost(patch: pytest.MonkeyPatch) -> None:
    ask = ClipProcessor.prompt_inputs

    def lost(self: ClipProcessor, *args: Any, **kwargs: Any) -> Any:
        whole = ask(self, *args, **kwargs)
        types = None if whole.types is None else whole.types[1:]
        return replace(whole, ids=whole.ids[1:], types=types)

    patch.setattr(ClipProcessor, "prompt_inputs", lost)


def clip_blackened(patch: pytest.MonkeyPatch) -> None:
    encode = vlm_model.encoder_of

    def black(*args: Any) -> Callable[..., Any]:
        return lambda pixel_values, **others: encode(*args)(pixel_values=0 * pixel_values, **others)

    patch.setattr(vlm_model, "encoder_of", black)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("qwen2_5_vl", flat_positions),
        ("qwen2_5_vl", first_token_lost),
        ("internvl", clip_blackened),
        ("lfm3_vl", padding_read),
        ("exaone4_5", padding_read),
    ],
)
def test_a_fault_is_found_and_the_model_refused(name, plant, dtype, family_folder, monkeypatch):
    folder = str(family_folder(name))
    model, processor = load_model(folder, None, dtype, None), ClipProcessor(folder)
    require_parity(model, processor, folder)
    monkeypatch.setattr(parity, "_PASSED", set())
    plant(monkeypatch)
    with pytest.raises(ModelError, match=rf"model.vlm: '{re.escape(folder)}' is a '{name}' model, which"):
        require_parity(model, processor, folder)


def test_a_model_that_transformers_itself_cannot_read_is_refused_with_its_reason(family_folder, monkeypatch):
    folder = str(family_folder("internvl"))
    model, processor = load_model(folder, None, "float32", None), ClipProcessor(folder)
    monkeypatch.setattr(type(model), "forward", lambda self, **kwargs: 1 / 0)
    with pytest.raises(ModelError, match="transformers itself cannot answer about a clip with it: division by zero"):
        require_parity(model, processor, folder)


def test_a_lack_of_memory_is_no_fault_of_the_model(family_folder, monkeypatch):
    folder = str(family_folder("internvl"))
    model, processor = load_model(folder, None, "float32", None), ClipProcessor(folder)

    def full(self: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(type(model), "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        require_parity(model, processor, folder)


def test_the_model_is_left_as_it_was_and_asked_once(family_folder, monkeypatch):
    folder = str(family_folder("internvl"))
    model, processor = load_model(folder, None, "float32", None).train(), ClipProcessor(folder)
    state = torch.get_rng_state()
    require_parity(model, processor, folder)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state), "what is drawn later must not depend on it"
    monkeypatch.setattr(type(model), "forward", lambda self, **kwargs: 1 / 0)
    require_parity(model, processor, folder)
    with pytest.raises(ModelError):
        require_parity(model, processor, folder, "another revision")


def test_inputs_are_made_on_the_host_where_tensors_are_made_elsewhere(family_folder):
    """A trainer loads a model within a context that puts new tensors on its device."""
    folder = str(family_folder("qwen3_vl"))
    processor = ClipProcessor(folder)
    with torch.device("meta"):
        asked, targets = parity._questions(processor, "a model")
    made = [*targets, *(value for one in asked for value in (*one.whole.values(), *one.prompt.vision.values()))]
    assert {value.device.type for value in made} == {"cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_type_that_is_proven_passes(name, dtype, family_folder):
    if name == "perception_lm":
        pytest.importorskip("timm")
    folder = str(family_folder(name))
    require_parity(load_model(folder, None, dtype, None), ClipProcessor(folder), folder)


def test_a_run_ends_before_anything_is_done_with_such_a_model(family_folder, tmp_path, monkeypatch):
    flat_positions(monkeypatch)
    clips = write_clips(tmp_path / "clips", {"train": (1, 1), "val": (1, 1), "test": (1, 1)})
    config = write_experiment(tmp_path / "run.yaml", clips, family_folder("qwen2_5_vl"))
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "sft")
    assert result.code == 1
    assert "answers otherwise here than in transformers alone" in " ".join(result.err.split())
    assert not list((tmp_path / "runs").rglob("stage.json")) and not list((tmp_path / "runs").rglob("*.ckpt"))
