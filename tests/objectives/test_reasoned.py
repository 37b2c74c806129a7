"""The class is learned behind a rationale as it is scored at test, and the anchor holds the rationale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import StageError
from rbft.objectives.reasoned import ReasonedObjective
from rbft.rationales.store import Rationale
from rbft.vlm.base_weights import Reference, base_state
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.tuning import FullFineTuning, trained_state

NAMES = ("push", "push up", "archery")
BOOK = PromptBook(Prompts(hint="blind"), LabelSet(NAMES))
RECORDS = [
    VideoRecord("0", "0.mp4", "push"),
    VideoRecord("1", "1.mp4", "archery"),
    VideoRecord("2", "2.mp4", "push up"),
]


def rationale(number: int, text: str, sample: int = 0, **changes: object) -> Rationale:
    of = {
        "id": str(number),
        "sample": sample,
        "video": f"{number}.mp4",
        "label": RECORDS[number].label,
        "prompt_hash": "",
        "hint": "blind",
        "model": "m",
        "text": text,
        "stated": None,
        "written": text,
        "truncated": False,
    }
    return Rationale(**{**of, **changes})  # type: ignore[arg-type]


TEXTS = [
    rationale(0, "An arm moves."),
    rationale(0, "An arm moves fast", sample=1, weight=0.5),
    rationale(1, "A bow."),
    rationale(2, "Both arms bend."),
]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    """A model moved away from the weights that the stage began with."""
    made = load(family_folder("qwen2_5_vl"), FullFineTuning())
    made.vlm.reference = Reference(made.vlm.model, base_state(made.vlm.model))
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(made.vlm.model).values():
        value.add_(torch.randn(value.shape, generator=generator) * 0.02)
    return made


def batches(loaded: Loaded, objective: ReasonedObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    clips: dict[str, list[Item]] = {}
    for example in objective.examples(RECORDS, BOOK, TEXTS):
        items = clips.setdefault(example.record.id, [])
        assert example.answer is not None
        target = loaded.processor.target_ids(example.prompt, example.answer)
        clip = make_clip(int(example.record.id))
        prompt = items[0].prompt if items else loaded.processor.prompt_inputs(example.prompt, clip)
        items.append(Item(0, prompt, target, example.weight / len(target), 4.0))
    rows = list(clips.values())
    if filler:
        rows.append([Item(0, item.prompt, item.target, 0.0, 4.0) for item in rows[0]])
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


def expected(loaded: Loaded, anchor: float) -> float:
    """The loss by a plain pass over each text with each class."""
    total = 0.0
    for text in TEXTS:
        prompt = loaded.processor.prompt_inputs(BOOK.blind_prompt(), make_clip(int(text.id)))
        wholes = [loaded.processor.target_ids(BOOK.blind_prompt(), BOOK.concluded(text.text, name)) for name in NAMES]
        shared = min(int((a[: len(b)] != b[: len(a)]).nonzero()[0]) for a in wholes for b in wholes if not a.equal(b))
        chances, tuned = [], None
        for whole in wholes:
            logs = loaded.vlm.target_logits([prompt], [whole])[0].log_softmax(-1)
            tuned = logs if tuned is None else tuned
            chances.append(logs[range(len(whole)), whole][shared:].sum())
        each = -torch.stack(chances).log_softmax(0)[NAMES.index(text.label)]
        assert loaded.vlm.reference is not None and tuned is not None
        with loaded.vlm.reference.active():
            start = loaded.vlm.target_logits([prompt], [wholes[0]])[0].log_softmax(-1)
        divergence = (start.exp() * (start - tuned)).sum(-1)[:shared].mean()
        assert float(divergence) > 1e-4
        total += text.weight * float(each + anchor * divergence) / 4
    return total


@pytest.mark.parametrize("anchor", [0.0, 0.7])
def test_loss_is_written_out_by_hand(loaded: Loaded, anchor: float) -> None:
    objective = ReasonedObjective(anchor=anchor)
    with torch.no_grad():
        found = sum(float(objective.loss(loaded.vlm, batch)) for batch in batches(loaded, objective, 3))
        assert found == pytest.approx(expected(loaded, anchor), abs=2e-4)


def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded: Loaded) -> None:
    objective = ReasonedObjective()

    def gradients(size: int, filler: bool = False) -> dict[str, torch.Tensor]:
        loaded.vlm.zero_grad()
        for batch in batches(loaded, objective, size, filler):
            objective.loss(loaded.vlm, batch).backward()
        return {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.grad is not None}

    whole = gradients(3)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    for other in (gradients(1), gradients(4, filler=True)):
        for name, value in whole.items():
            assert float((other[name] - value).abs().max()) < 1e-5, name


def test_rows_are_all_classes_behind_each_kept_text() -> None:
    dropped = [rationale(1, "No.", sample=1, kept=False), rationale(2, "Own.", sample=1, labelled=False)]
    rows = ReasonedObjective(class_weights="balanced").examples(RECORDS, BOOK, [*TEXTS, *dropped])
    assert len(rows) == 12
    assert [row.answer for row in rows[:3]] == [BOOK.concluded("An arm moves.", name) for name in NAMES]
    assert rows[6].answer == BOOK.concluded("A bow.", "archery"), "the right class first"
    assert [row.weight for row in rows] == [1, 0, 0, 0.5, 0, 0, 1, 0, 0, 1, 0, 0]
    assert {row.prompt for row in rows} == {BOOK.blind_prompt()}


def test_texts_that_a_test_would_not_have_are_refused() -> None:
    objective = ReasonedObjective()
    with pytest.raises(StageError, match=r"hint to blind"):
        objective.examples(RECORDS, BOOK, [rationale(0, "It is known.", hint="hint_stripped")])
    with pytest.raises(StageError, match="'archery'"):
        objective.examples(RECORDS, BOOK, TEXTS[:2])
    with pytest.raises(StageError, match="not a training video"):
        objective.examples(RECORDS[:2], BOOK, TEXTS)
