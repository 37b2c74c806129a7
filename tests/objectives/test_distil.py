"""Distillation is the cross-entropy of soft labels with the labels' scores, however a step is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, StageError
from rbft.objectives.distil import DistilObjective
from rbft.rationales.soft_labels import SoftLabel
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.tuning import FullFineTuning

NAMES = ("push", "push up", "archery")
BOOK = PromptBook(Prompts(), LabelSet(NAMES))
RECORDS = [VideoRecord("0", "0.mp4", "push"), VideoRecord("1", "1.mp4", "archery"), VideoRecord("2", "2.mp4", "push")]
CHANCES = ([0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1])


def soft(number: int, label: str, chances: list[float]) -> SoftLabel:
    return SoftLabel(str(number), 0, f"{number}.mp4", label, None, "model", list(NAMES), chances, ["a text"])


def taught(**settings: object) -> DistilObjective:
    """Three labelled clips and one whose class nobody knows."""
    objective = DistilObjective(**settings)  # type: ignore[arg-type]
    labels = [*(record.label for record in RECORDS), ""]
    objective.answers = [soft(n, label, c) for n, (label, c) in enumerate(zip(labels, CHANCES, strict=True))]
    return objective


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"), FullFineTuning())


def batches(loaded: Loaded, objective: DistilObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    clips: dict[str, list[Item]] = {}
    for example in objective.examples(RECORDS, BOOK, []):
        items = clips.setdefault(example.record.id, [])
        assert example.answer is not None
        target = loaded.processor.target_ids(example.prompt, example.answer)
        prompt = items[0].prompt if items else loaded.inputs(example.prompt.question, make_clip(len(clips)))
        items.append(Item(0, prompt, target, example.weight / len(target), 4.0, example.value))
    rows = list(clips.values())
    if filler:
        rows.append([Item(0, item.prompt, item.target, 0.0, 4.0, item.value) for item in rows[0]])
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_is_written_out_by_hand(loaded: Loaded, temperature: float) -> None:
    objective = taught(temperature=temperature, hard=0.5)
    (batch,) = batches(loaded, objective, 4)
    with torch.no_grad():
        targets = tuple(loaded.processor.target_ids(BOOK.label_prompt(), text) for text in BOOK.texts)
        scores = LabelScorer(targets)(loaded.vlm, [batch.prompts[row] for row in (0, 3, 6, 9)])
        found = float(objective.loss(loaded.vlm, batch))
    expected = 0.0
    for row, chances in enumerate(CHANCES):
        powers = [chance ** (1 / temperature) for chance in chances]
        learnt = [power / sum(powers) for power in powers]
        if row < 3:  # half of it is the class that is known
            truth = NAMES.index(RECORDS[row].label)
            learnt = [0.5 * value + 0.5 * (place == truth) for place, value in enumerate(learnt)]
        logs = (scores[row] / temperature).log_softmax(-1).tolist()
        expected -= temperature**2 * sum(a * b for a, b in zip(learnt, logs, strict=True)) / 4
    assert found == pytest.approx(expected, abs=1e-5)


def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded: Loaded) -> None:
    objective = taught()

    def gradients(size: int, filler: bool = False) -> dict[str, torch.Tensor]:
        loaded.vlm.zero_grad()
        for batch in batches(loaded, objective, size, filler):
            objective.loss(loaded.vlm, batch).backward()
        return {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.grad is not None}

    whole = gradients(4)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    for other in (gradients(1), gradients(5, filler=True)):
        for name, value in whole.items():
            assert float((other[name] - value).abs().max()) < 1e-5, name


def test_rows_stand_in_the_order_of_the_classes_and_weigh_by_clip() -> None:
    rows = taught(class_weights="balanced").examples(RECORDS, BOOK, [])
    assert [row.answer for row in rows] == list(NAMES) * 4
    assert [row.value for row in rows] == pytest.approx([value for chances in CHANCES for value in chances])
    assert [row.weight for row in rows[::3]] == pytest.approx([0.75, 1.5, 0.75, 1.0])
    assert {row.weight for place, row in enumerate(rows) if place % 3} == {0.0}
    assert rows[9].record == VideoRecord("3", "3.mp4", "")


def test_unsure_answers_about_unlabelled_clips_are_left_out() -> None:
    ids = {row.record.id for row in taught(confidence=0.75).examples(RECORDS, BOOK, [])}
    assert ids == {"0", "1", "2"}, "0.7 is not enough, and labelled clips stay"
    objective = taught(confidence=0.75)
    objective.answers = objective.answers[3:]
    with pytest.raises(StageError, match="as sure as"):
        objective.examples(RECORDS, BOOK, [])


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(StageError, match="kind 'answer'"):
        DistilObjective().examples(RECORDS, BOOK, [])
    strange = taught()
    strange.answers = [soft(7, "push", CHANCES[0])]
    with pytest.raises(StageError, match="'7', which is not a training video"):
        strange.examples(RECORDS, BOOK, [])
    with pytest.raises(StageError, match="other classes"):
        taught().examples(RECORDS, PromptBook(Prompts(), LabelSet(("push", "archery", "jump"))), [])
    for settings in ({"temperature": 0.0}, {"hard": 1.5}, {"confidence": -0.1}):
        with pytest.raises(ConfigError, match=f"model.objective.{next(iter(settings))}"):
            DistilObjective(**settings)
