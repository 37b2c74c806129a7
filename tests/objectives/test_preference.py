"""The loss of pairs of rationales is the one of direct preference optimisation, however a step is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.objectives.test_reasoned import BOOK, RECORDS, rationale
from tests.support.models import Loaded, load, make_clip

from rbft.errors import ConfigError, StageError
from rbft.objectives.preference import PreferenceObjective
from rbft.vlm.base_weights import Reference, base_state
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.tuning import FullFineTuning, trained_state

TEXTS = [
    rationale(0, "An arm moves.", stated="push"),
    rationale(0, "A bow.", sample=1, stated="archery"),
    rationale(0, "Both arms.", sample=2, stated="push up"),
    rationale(1, "A bow.", stated="archery"),
    rationale(1, "An arm.", sample=1, stated="push"),
    rationale(2, "Both arms bend.", stated="push up"),  # nothing to hold against it
    rationale(2, "", sample=1, written="No."),  # it has no reasons
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


def made(loaded: Loaded, **settings: float | str) -> PreferenceObjective:
    objective = PreferenceObjective(**settings)  # type: ignore[arg-type]
    objective.connect(loaded.processor, BOOK, 0)
    return objective


def test_pairs_of_hints_are_of_texts_that_were_led_to_either_side(loaded: Loaded) -> None:
    texts = [
        rationale(0, "An arm moves.", stated="push"),
        rationale(0, "A bow.", sample=1, stated="archery"),  # hinted to its own class, and led nowhere
        replace(rationale(0, "Both arms.", sample=2, stated="push up"), hinted_to="push up"),
        replace(rationale(0, "One arm.", sample=3, stated="push"), hinted_to="archery"),  # not to be led
        replace(rationale(1, "An arm.", stated="push"), hinted_to="push"),  # nothing better was written
    ]
    rows = made(loaded, between="hints").examples(RECORDS, BOOK, texts)
    assert [row.answer for row in rows] == [
        BOOK.concluded("An arm moves.", "push"),
        BOOK.concluded("Both arms.", "push up"),
    ]
    assert {row.prompt for row in rows} == {BOOK.blind_prompt()}, "no hint is learned from"
    by_conclusion = made(loaded).examples(RECORDS, BOOK, texts)
    assert [row.answer for row in by_conclusion] == [
        BOOK.concluded("An arm moves.", "push"),
        BOOK.concluded("A bow.", "archery"),
    ], "texts that were led elsewhere are none of the model's own conclusions"
    with pytest.raises(StageError, match="with other random numbers"):
        made(loaded, between="hints").examples(RECORDS, BOOK, texts[3:])


def batches(loaded: Loaded, objective: PreferenceObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    clips: dict[str, list[Item]] = {}
    for example in objective.examples(RECORDS, BOOK, TEXTS):
        items = clips.setdefault(example.record.id, [])
        assert example.answer is not None
        target = loaded.processor.target_ids(example.prompt, example.answer)
        clip = make_clip(int(example.record.id))
        prompt = items[0].prompt if items else loaded.processor.prompt_inputs(example.prompt, clip)
        items.append(Item(0, prompt, target, example.weight / len(target), 3.0))
    rows = list(clips.values())
    if filler:
        rows.append([Item(0, item.prompt, item.target, 0.0, 3.0) for item in rows[0]])
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


def test_loss_is_written_out_by_hand(loaded: Loaded) -> None:
    objective = made(loaded, beta=0.3, nll=0.5)

    def likelihood(number: int, text: str, label: str) -> tuple[float, int]:
        prompt = loaded.processor.prompt_inputs(BOOK.blind_prompt(), make_clip(number))
        target = loaded.processor.target_ids(BOOK.blind_prompt(), BOOK.concluded(text, label))
        return float(loaded.vlm.target_log_probs([prompt], [target])[0].sum()), len(target)

    pairs = [
        (0, ("An arm moves.", "push"), ("A bow.", "archery"), 0.5),
        (0, ("An arm moves.", "push"), ("Both arms.", "push up"), 0.5),
        (1, ("A bow.", "archery"), ("An arm.", "push"), 1.0),
    ]
    total = 0.0
    assert loaded.vlm.reference is not None
    with torch.no_grad():
        for number, good, bad, weight in pairs:
            tuned, tokens = likelihood(number, *good)
            margin = tuned - likelihood(number, *bad)[0]
            with loaded.vlm.reference.active():
                margin -= likelihood(number, *good)[0] - likelihood(number, *bad)[0]
            assert abs(margin) > 1e-2
            total += weight * (math.log1p(math.exp(-0.3 * margin)) - 0.5 * tuned / tokens) / 3
        found = sum(float(objective.loss(loaded.vlm, batch)) for batch in batches(loaded, objective, 2))
    assert found == pytest.approx(total, abs=1e-4)


def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded: Loaded) -> None:
    objective = made(loaded)

    def gradients(size: int, filler: bool = False) -> dict[str, torch.Tensor]:
        loaded.vlm.zero_grad()
        for batch in batches(loaded, objective, size, filler):
            objective.loss(loaded.vlm, batch).backward()
        return {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.grad is not None}

    whole = gradients(2)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-4
    for other in (gradients(1), gradients(3, filler=True)):
        for name, value in whole.items():
            assert float((other[name] - value).abs().max()) < 1e-6, name


def test_pairs_are_of_as_many_texts_as_there_are(loaded: Loaded) -> None:
    good = [rationale(0, f"good {n}", sample=n, stated="push") for n in range(2)]
    bad = [rationale(0, f"bad {n}", sample=4 + n, stated="archery") for n in range(2)]
    bad += [rationale(0, "bad 2", sample=6, written="bad 2 Classification: nothing")]
    bad += [rationale(0, "bad 3", sample=7, written=f"bad 3 {loaded.processor.special_tokens[0]}")]
    more = [rationale(0, "good 0", sample=8, stated="push"), rationale(0, "no", sample=9, stated="push", kept=False)]
    rows = made(loaded, pairs=3).examples(RECORDS, BOOK, [*good, *bad, *more])
    texts = [BOOK.parse(row.answer or "").body for row in rows]
    assert len(rows) == 6 and set(texts) == {"good 0", "good 1", "bad 0", "bad 1", "bad 2"}
    assert "bad 2 Classification: nothing" in {row.answer for row in rows}, "as it was written"
    assert [row.weight for row in rows] == pytest.approx([1 / 3, 0] * 3)
    assert len(made(loaded, pairs=9).examples(RECORDS, BOOK, [*good, *bad, *more])) == 12, "all that there are"


def test_what_cannot_be_learned_is_refused(loaded: Loaded) -> None:
    with pytest.raises(StageError, match="samples and temperature"):
        made(loaded).examples(RECORDS, BOOK, TEXTS[5:])
    with pytest.raises(StageError, match="not a training video"):
        made(loaded).examples(RECORDS[1:], BOOK, TEXTS)
    for settings in ({"beta": 0.0}, {"pairs": 0}, {"nll": -1.0}):
        with pytest.raises(ConfigError, match=f"model.objective.{next(iter(settings))}"):
            PreferenceObjective(**settings)
