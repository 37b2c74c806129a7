"""A step's gradient is that of the weighted mean over tokens, however the step is cut into micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip
from torch import Tensor

from rbft.data.sampler import Draw, TrainSampler
from rbft.objectives.base import language_model_loss
from rbft.objectives.classification import ClassificationObjective
from rbft.vlm.batch import Batch, Item, PromptInputs, collate
from rbft.vlm.model import VLM
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import LoRA, trained_state

QUESTION = "Which action?"
ANSWERS = (
    "a",
    "push",
    "push up",
    "the person jumps over a wooden door",
    "archery",
    "b c",
    "fencing now",
    "push up fast",
)
WEIGHTS = (1.0, 0.5, 1.0, 0.25, 2.0, 1.0, 1.5, 0.1)


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    found = load(family_folder("qwen2_5_vl"), LoRA(rank=4, dropout=0.0, projector="train"))
    # in double precision, so that what is left of a difference is not rounding
    found.vlm.double()
    generator = torch.Generator().manual_seed(0)
    for name, value in trained_state(found.vlm).items():
        if "lora_B" in name:  # zero at first, which would hide half of the gradients
            value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    return found


@pytest.fixture(scope="module")
def prompts(loaded: Loaded) -> list[PromptInputs]:
    return [loaded.inputs(QUESTION, make_clip(i, frames=4 + i % 3)) for i in range(len(ANSWERS))]


@pytest.fixture(scope="module")
def targets(loaded: Loaded) -> list[Tensor]:
    return [loaded.target(QUESTION, answer) for answer in ANSWERS]


def batch_of(draws: list[Draw], prompts, targets) -> Batch:
    return collate(
        [
            [Item(draw.clip, prompts[draw.clip], targets[draw.clip], WEIGHTS[draw.clip] * draw.weight, draw.normalizer)]
            for draw in draws
        ]
    )


def gradients(loaded: Loaded, batches: list[Batch]) -> tuple[float, dict[str, Tensor]]:
    loaded.vlm.zero_grad()
    total = 0.0
    for batch in batches:
        loss = language_model_loss(loaded.vlm, batch)
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.requires_grad}


def cut(targets, batch_size: int, accumulate: int, world: int) -> list[list[Draw]]:
    """The micro-batches of the one step that takes all rows, over all ranks."""
    lengths = [len(target) for target in targets]
    samplers = [TrainSampler(lengths, lengths, batch_size, accumulate, rank, world, seed=1) for rank in range(world)]
    assert samplers[0].steps == 1
    return [rows for sampler in samplers for rows in sampler]


@pytest.fixture(scope="module")
def at_once(loaded, prompts, targets):
    return gradients(loaded, [batch_of(rows, prompts, targets) for rows in cut(targets, 8, 1, 1)])


# the last three leave the step short, so that rows of weight 0 fill it up
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world"),
    [(1, 8, 1), (2, 4, 1), (4, 2, 1), (2, 2, 2), (1, 2, 4), (3, 1, 3), (3, 3, 1), (2, 5, 1)],
)
def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded, prompts, targets, at_once, batch_size, accumulate, world):
    pieces = cut(targets, batch_size, accumulate, world)
    assert len(pieces) == accumulate * world
    loss, found = gradients(loaded, [batch_of(rows, prompts, targets) for rows in pieces])
    assert loss == pytest.approx(at_once[0], rel=1e-6)
    largest = max(float(value.abs().max()) for value in at_once[1].values())
    assert largest > 1e-3
    for name, value in at_once[1].items():
        assert float((found[name] - value).abs().max()) < 1e-6 * max(1.0, largest), name


def test_loss_is_the_weighted_sum_over_the_number_of_tokens(loaded, prompts, targets, at_once):
    with torch.no_grad():
        each = [loaded.vlm.target_log_probs([p], [t])[0].sum() for p, t in zip(prompts, targets, strict=True)]
    top = -sum(weight * float(value) for weight, value in zip(WEIGHTS, each, strict=True))
    assert at_once[0] == pytest.approx(top / sum(len(target) for target in targets), rel=1e-5)


def test_rows_of_weight_zero_change_nothing(loaded, prompts, targets):
    rows = [Draw(0, (0,), 1.0, 9.0), Draw(1, (0,), 1.0, 9.0)]
    fillers = [Draw(3, (0,), 0.0, 9.0), Draw(2, (0,), 0.0, 9.0)]
    bare = gradients(loaded, [batch_of(rows, prompts, targets)])
    filled = gradients(loaded, [batch_of([*rows, *fillers], prompts, targets)])
    assert filled[0] == pytest.approx(bare[0], rel=1e-6)
    for name, value in bare[1].items():
        assert float((filled[1][name] - value).abs().max()) < 1e-6, name
    empty = gradients(loaded, [batch_of(fillers, prompts, targets)])
    assert empty[0] == 0.0
    assert all(float(value.abs().max()) == 0.0 for value in empty[1].values())


def test_objectives_share_this_loss(loaded, prompts, targets):
    batch = batch_of([Draw(0, (0,), 1.0, 3.0)], prompts, targets)
    with torch.no_grad():
        assert torch.equal(ClassificationObjective().loss(loaded.vlm, batch), language_model_loss(loaded.vlm, batch))


@pytest.mark.parametrize("kernel", [True, False], ids=["tree", "rows"])
def test_answers_about_one_clip_weigh_what_they_would_alone(loaded, monkeypatch, kernel):
    """Also where questions differ already before the clip, as they do when one has a system turn of its own."""
    monkeypatch.setattr(VLM, "takes_tree_masks", kernel)
    asked = [
        (0, Prompt(QUESTION), "push"),
        (0, Prompt(QUESTION), "push up"),
        (0, Prompt("Why?"), "a wooden door"),
        (1, Prompt(QUESTION), "a"),
        (2, Prompt(QUESTION), "push"),
        (2, Prompt(QUESTION, system="Be brief."), "a door"),
    ]
    weights = (1.0, 0.5, 2.0, 1.0, 0.25, 3.0)
    items: dict[int, list[Item]] = {}
    for index, (number, prompt, answer) in enumerate(asked):
        target = loaded.processor.target_ids(prompt, answer)
        rows = items.setdefault(number, [])
        inputs = loaded.processor.another(prompt, rows[0].prompt) if rows else None
        inputs = inputs or loaded.processor.prompt_inputs(prompt, make_clip(number))
        rows.append(Item(index, inputs, target, weights[index], 20.0))
    together = gradients(loaded, [collate(list(items.values()))])
    alone = gradients(loaded, [collate([[item]]) for rows in items.values() for item in rows])
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    for name, value in alone[1].items():
        assert float((together[1][name] - value).abs().max()) < 1e-6, name
