"""Weights between the base model and the tuned one, for adapters and for whole parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import load, make_clip

from rbft.vlm.base_weights import TuningStrength
from rbft.vlm.tuning import FullFineTuning, LoRA, trained_state

TUNINGS = {"lora": LoRA(rank=4, dropout=0.0), "projector": LoRA(rank=4, projector="train"), "full": FullFineTuning()}


@pytest.mark.parametrize("name", TUNINGS)
@torch.no_grad()
def test_the_ends_are_both_models_and_the_middle_lies_between(family_folder: Callable[[str], Path], name: str) -> None:
    folder = family_folder("qwen2_5_vl")
    plain, loaded = load(folder), load(folder, TUNINGS[name])
    question, clip = "Which action?", make_clip(0)
    target = loaded.target(question, "archery")

    def score(model) -> list[float]:
        return model.vlm.target_log_probs([model.inputs(question, clip)], [target])[0].tolist()

    base = {key: value.clone() for key, value in trained_state(loaded.vlm.model).items()}
    assert score(loaded) == pytest.approx(score(plain), abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(loaded.vlm.model).values():
        value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    tuned = {key: value.clone() for key, value in trained_state(loaded.vlm.model).items()}
    strong = score(loaded)
    assert strong != pytest.approx(score(plain), abs=1e-3)
    strength = TuningStrength(loaded.vlm.model, base)
    strength.set(0.0)
    assert score(loaded) == pytest.approx(score(plain), abs=1e-5)
    strength.set(0.5)
    assert score(loaded) != pytest.approx(score(plain), abs=1e-3)
    assert score(loaded) != pytest.approx(strong, abs=1e-3)
    for key, value in trained_state(loaded.vlm.model).items():
        if "lora_B" in key:
            assert torch.allclose(value, tuned[key] / 2)
        elif "lora_A" not in key:
            assert torch.allclose(value, (base[key] + tuned[key]) / 2)
    strength.set(1.0)
    assert all(torch.equal(value, tuned[key]) for key, value in trained_state(loaded.vlm.model).items())
