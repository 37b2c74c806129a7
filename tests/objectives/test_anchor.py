"""The anchor is the divergence from the base model, and leaves weights and modes as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.support.models import Loaded, load, make_clip

from rbft.errors import ConfigError
from rbft.objectives.base import language_model_loss
from rbft.objectives.classification import ClassificationObjective
from rbft.vlm.base_weights import Reference, base_state
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.tuning import FullFineTuning, LoRA, trained_state

QUESTION = "Which action?"


def moved(folder: Path, tuning) -> Loaded:
    loaded = load(folder, tuning)
    base = base_state(loaded.vlm.model)
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(loaded.vlm.model).values():
        value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    loaded.vlm.reference = Reference(loaded.vlm.model, base)
    return loaded


def batch(loaded: Loaded) -> Batch:
    items = []
    for number, (answer, weight) in enumerate((("archery", 1.0), ("push up", 0.5))):
        prompt, target = loaded.inputs(QUESTION, make_clip(number)), loaded.target(QUESTION, answer)
        items.append([Item(number, prompt, target, weight, 3.0)])
    return collate(items)


@pytest.mark.parametrize("tuning", [FullFineTuning(), LoRA(rank=4, dropout=0.3)], ids=["full", "lora"])
def test_the_anchor_adds_the_divergence_from_the_base_model(family_folder: Callable[[str], Path], tuning) -> None:
    folder = family_folder("qwen2_5_vl")
    loaded, plain = moved(folder, tuning), load(folder)
    rows = batch(loaded)
    with torch.no_grad():
        tuned, where = loaded.vlm.target_logits(rows.prompts, rows.targets)
        base, _ = plain.vlm.target_logits(rows.prompts, rows.targets)
        p, q = base.log_softmax(-1), tuned.log_softmax(-1)
        divergence = (p.exp() * (p - q)).sum(-1)
        assert float(divergence.min()) > 1e-4
        expected = float((divergence * rows.weights[where]).sum()) / 3.0
        without, with_anchor = (float(language_model_loss(loaded.vlm, rows, anchor)) for anchor in (0.0, 0.7))
    assert with_anchor - without == pytest.approx(0.7 * expected, rel=1e-3)


def test_the_base_model_only_passes_by(family_folder: Callable[[str], Path]) -> None:
    loaded = moved(family_folder("qwen2_5_vl"), LoRA(rank=4, dropout=0.3))
    before = {name: value.clone() for name, value in trained_state(loaded.vlm.model).items()}
    loaded.vlm.train()
    loaded.vlm.base.get_encoder(modality="image").eval()
    modes = {name: module.training for name, module in loaded.vlm.named_modules()}
    language_model_loss(loaded.vlm, batch(loaded), 0.5).backward()
    assert {name: module.training for name, module in loaded.vlm.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in trained_state(loaded.vlm.model).items())
    assert any(float(p.grad.abs().sum()) > 0 for p in loaded.vlm.parameters() if p.grad is not None)


def test_a_strong_anchor_holds_the_model_back(family_folder: Callable[[str], Path]) -> None:
    folder = family_folder("qwen2_5_vl")

    def drift(anchor: float) -> float:
        loaded = load(folder, FullFineTuning())
        loaded.vlm.reference = Reference(loaded.vlm.model, base_state(loaded.vlm.model))
        optimizer, rows = torch.optim.SGD(loaded.vlm.parameters(), lr=0.02), batch(loaded)
        for _ in range(8):
            optimizer.zero_grad()
            language_model_loss(loaded.vlm, rows, anchor).backward()
            torch.nn.utils.clip_grad_norm_(loaded.vlm.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            tuned, _ = loaded.vlm.target_logits(rows.prompts, rows.targets)
            base, _ = load(folder).vlm.target_logits(rows.prompts, rows.targets)
        return float(F.kl_div(tuned.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="batchmean"))

    assert drift(20.0) < 0.5 * drift(0.0)


@pytest.mark.parametrize("anchor", [-1.0, float("nan"), float("inf")])
def test_wrong_weights_are_refused(anchor):
    with pytest.raises(ConfigError, match=r"^model\.objective\.anchor"):
        ClassificationObjective(anchor=anchor)
