"""The closed-set loss is the cross-entropy of what scoring gives, however a step is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.dataset import Example
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.objectives.base import class_weights
from rbft.objectives.closed_set import ClosedSetObjective
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.tuning import FullFineTuning

NAMES = ("push", "push up", "archery")
BOOK = PromptBook(Prompts(), LabelSet(NAMES))
RECORDS = [VideoRecord(str(i), f"{i}.mp4", name) for i, name in enumerate(("push", "push", "push", "archery"))]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"), FullFineTuning())


def batches(loaded: Loaded, objective: ClosedSetObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    rows: dict[str, list[Example]] = {}
    for example in objective.examples(RECORDS, BOOK, []):
        rows.setdefault(example.record.id, []).append(example)
    clips = []
    for number, examples in enumerate(rows.values()):
        items = []
        for example in examples:
            assert example.answer is not None
            target = loaded.processor.target_ids(example.prompt, example.answer)
            weight = example.weight / len(target) if example.whole else example.weight
            prompt = items[0].prompt if items else loaded.processor.prompt_inputs(example.prompt, make_clip(number))
            items.append(Item(number, prompt, target, weight, 4.0))
        clips.append(items)
    if filler:
        clips.append([Item(item.index, item.prompt, item.target, 0.0, 4.0) for item in clips[0]])
    return [collate(clips[start : start + size]) for start in range(0, len(clips), size)]


def test_rows_are_all_labels_with_the_right_one_first() -> None:
    rows = ClosedSetObjective().examples(RECORDS, BOOK, [])
    assert len(rows) == len(RECORDS) * len(NAMES)
    for number, record in enumerate(RECORDS):
        mine = rows[3 * number : 3 * number + 3]
        assert mine[0].answer == record.label
        assert sorted(row.answer or "" for row in mine) == sorted(NAMES)
        assert [(row.weight, row.whole) for row in mine] == [(1.0, True), (0.0, False), (0.0, False)]


@pytest.mark.parametrize("kernel", [True, False], ids=["tree", "rows"])
@pytest.mark.parametrize("how", ["none", "balanced"])
def test_loss_is_the_cross_entropy_of_the_scores(loaded, monkeypatch, kernel, how):
    monkeypatch.setattr(VLM, "takes_tree_masks", kernel)
    with torch.no_grad():
        prompts = [loaded.processor.prompt_inputs(BOOK.label_prompt(), make_clip(i)) for i in range(4)]
        targets = tuple(loaded.processor.target_ids(BOOK.label_prompt(), text) for text in BOOK.texts)
        scores = LabelScorer(targets)(loaded.vlm, prompts)
        truth = torch.tensor([NAMES.index(record.label) for record in RECORDS])
        weights = torch.tensor([class_weights(RECORDS, how)[record.label] for record in RECORDS])
        each = torch.nn.functional.cross_entropy(scores, truth, reduction="none")
        found = sum(ClosedSetObjective(how).loss(loaded.vlm, b) for b in batches(loaded, ClosedSetObjective(how), 4))
    assert float(found) == pytest.approx(float((each * weights).sum() / 4), abs=1e-5)


def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded):
    objective = ClosedSetObjective()

    def gradients(size: int, filler: bool = False) -> dict[str, torch.Tensor]:
        loaded.vlm.zero_grad()
        for batch in batches(loaded, objective, size, filler):
            objective.loss(loaded.vlm, batch).backward()
        return {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.grad is not None}

    whole = gradients(4)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    for other in (gradients(1), gradients(3), gradients(5, filler=True)):
        for name, value in whole.items():
            assert float((other[name] - value).abs().max()) < 1e-5, name


def test_balanced_weights_give_every_class_the_same_share():
    weights = class_weights(RECORDS, "balanced")
    assert weights == {"push": pytest.approx(4 / 6), "archery": pytest.approx(2)}
    assert sum(weights[record.label] for record in RECORDS) == pytest.approx(len(RECORDS))
    assert set(class_weights(RECORDS, "none").values()) == {1.0}
