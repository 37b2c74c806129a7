"""A weight acts the same in a step of any size, cut in any way: it is never divided out again."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

import rbft.data.dataset
from rbft.data.dataset import ExampleDataset
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.data.sampler import TrainSampler
from rbft.objectives.base import ClassWeights, Objective
from rbft.objectives.classification import ClassificationObjective
from rbft.objectives.closed_set import ClosedSetObjective
from rbft.objectives.joint import JointObjective
from rbft.objectives.rationale import RationaleObjective
from rbft.rationales.store import Rationale
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import Batch, collate
from rbft.vlm.tuning import LoRA, trained_state

# class names, and texts, of equally many tokens: so a share is one of weights alone
NAMES = ("run", "fall")
BOOK = PromptBook(Prompts(), LabelSet(NAMES))
RECORDS = [VideoRecord(str(i), f"{i}.mp4", NAMES[0 if i < 18 else 1]) for i in range(20)]  # nine to one
RATIONALES = [
    Rationale(r.id, 0, r.path, r.label, "00", "blind", "me", "a door", r.label, "a door", False, weight=0.05 + 0.1 * i)
    for i, r in enumerate(RECORDS)
]
# clips of a micro-batch, micro-batches of a step, processes; all steps of an epoch are full
CUTS = [(1, 1, 1), (2, 1, 1), (4, 1, 1), (10, 1, 1), (20, 1, 1), (1, 5, 1), (2, 1, 2), (1, 2, 5)]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    found = load(family_folder("qwen2_5_vl"), LoRA(rank=4, dropout=0.0))
    generator = torch.Generator().manual_seed(0)
    for name, value in trained_state(found.vlm).items():
        if "lora_B" in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    return found


@pytest.fixture(autouse=True)
def _decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str, *_: object, **__: object) -> object:
        return make_clip(int(Path(path).stem), frames=2)

    monkeypatch.setattr(rbft.data.dataset, "read_clip", read)


def rows(loaded: Loaded, objective: Objective) -> ExampleDataset:
    examples = objective.examples(RECORDS, BOOK, RATIONALES)
    return ExampleDataset(examples, Path(), ClipSpec(FrameSampling(num_frames=2)), loaded.processor)


def steps(dataset: ExampleDataset, batch_size: int, accumulate: int, world: int) -> Iterator[Batch]:
    """The micro-batches of an epoch, of all processes."""
    for rank in range(world):
        sampler = TrainSampler(dataset.supervised, dataset.lengths, batch_size, accumulate, rank, world, seed=3)
        yield from (collate([dataset[draw] for draw in draws]) for draws in sampler)


def shares(dataset: ExampleDataset, cut: tuple[int, int, int]) -> dict[str, float]:
    """The part of an epoch's loss that is about each clip, where all tokens were equally hard."""
    pulls: dict[str, float] = {}
    for batch in steps(dataset, *cut):
        for index, target, weight in zip(batch.indices, batch.targets, batch.weights.tolist(), strict=True):
            clip = dataset.examples[index].record.id
            pulls[clip] = pulls.get(clip, 0.0) + weight * len(target) / batch.normalizer
    total = sum(pulls.values())
    return {clip: pull / total for clip, pull in pulls.items()}


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("objective", [ClassificationObjective, ClosedSetObjective])
def test_a_rare_class_has_half_of_the_loss_at_any_step_size(loaded, objective, cut):
    found = shares(rows(loaded, objective("balanced")), cut)
    assert found["18"] + found["19"] == pytest.approx(0.5)
    found = shares(rows(loaded, objective("none")), cut)
    assert found["18"] + found["19"] == pytest.approx(0.1)


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("objective", [RationaleObjective(), JointObjective(0.2)], ids=["rationale", "joint"])
def test_a_rationale_has_the_loss_of_its_weight_at_any_step_size(loaded, objective, cut):
    dataset = rows(loaded, objective)
    once = shares(dataset, (20, 1, 1))
    assert max(once.values()) > 2 * min(once.values())
    assert shares(dataset, cut) == pytest.approx(once)


def test_the_mean_weight_is_one_whatever_the_scale(loaded, monkeypatch):
    for scale in (1.0, 0.1):
        small = [dataclasses.replace(r, weight=scale * r.weight) for r in RATIONALES]
        monkeypatch.setattr(sys.modules[__name__], "RATIONALES", small)
        dataset = rows(loaded, RationaleObjective("balanced"))
        (batch,) = steps(dataset, 20, 1, 1)
        tokens = torch.tensor([float(len(target)) for target in batch.targets])
        assert float((batch.weights * tokens).sum()) == pytest.approx(batch.normalizer)


def test_weights_of_one_are_left_as_they_are(loaded):
    for objective in (ClassificationObjective(), ClosedSetObjective()):
        dataset = rows(loaded, objective)
        for batch in steps(dataset, 3, 2, 1):
            for index, target, weight in zip(batch.indices, batch.targets, batch.weights.tolist(), strict=True):
                example = dataset.examples[index]
                expected = example.weight / len(target) if example.whole else example.weight
                assert weight in (0.0, torch.tensor(expected).item())


@pytest.mark.parametrize("objective", [ClassificationObjective, ClosedSetObjective])
def test_the_gradient_of_a_step_of_one_clip_follows_its_weight(loaded, objective):
    def gradient(weights: ClassWeights, label: str) -> torch.Tensor:
        dataset, chosen = rows(loaded, objective(weights)), objective(weights)
        alone = next(
            batch for batch in steps(dataset, 1, 1, 1) if dataset.examples[batch.indices[0]].record.label == label
        )
        loaded.vlm.zero_grad()
        chosen.loss(loaded.vlm, alone).backward()
        return torch.cat([p.grad.flatten() for p in loaded.vlm.parameters() if p.grad is not None])

    for label, factor in (("run", 10 / 18), ("fall", 5.0)):
        plain, weighted = gradient("none", label), gradient("balanced", label)
        assert float(weighted.norm() / plain.norm()) == pytest.approx(factor, rel=1e-3)
