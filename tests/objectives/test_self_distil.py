"""The student learns, along its own texts, what the model expects that is told the class; the hint stays out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.objectives.test_reasoned import RECORDS
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError
from rbft.objectives.self_distil import SelfDistilObjective
from rbft.rationales.writer import seed_of
from rbft.vlm.base_weights import Reference, base_state
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.generation import generate
from rbft.vlm.tuning import LoRA, trained_state

PROMPTS = Prompts(rationale_question="Why {labels}?", hinted_question="It shows {label}. Why?")
BOOK = PromptBook(PROMPTS, LabelSet(("push", "push up", "archery")))
NONE = torch.empty(0, dtype=torch.long)


@pytest.fixture
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    """A model with dropout, moved away from the weights that the stage began with."""
    made = load(family_folder("qwen2_5_vl"), LoRA(rank=4, dropout=0.3))
    made.vlm.reference = Reference(made.vlm.model, base_state(made.vlm.model))
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(made.vlm.model).values():
        value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    return made


def objective(loaded: Loaded, **settings: object) -> SelfDistilObjective:
    made = SelfDistilObjective(**{"samples": 2, "max_new_tokens": 5, **settings})  # type: ignore[arg-type]
    made.connect(loaded.processor, BOOK, 7)
    made.begin_epoch(3)
    return made


def batches(loaded: Loaded, made: SelfDistilObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    clips: dict[str, list[Item]] = {}
    for number, example in enumerate(made.examples(RECORDS, BOOK, [])):
        assert example.answer is None and example.whole
        items = clips.setdefault(example.record.id, [])
        if items:
            prompt = loaded.processor.another(example.prompt, items[0].prompt)
        else:
            prompt = loaded.processor.prompt_inputs(example.prompt, make_clip(int(example.record.id)))
        items.append(Item(number, prompt, NONE, example.weight, 3.0))
    rows = list(clips.values())
    if filler:
        rows.append([Item(item.index, item.prompt, NONE, 0.0, 3.0) for item in rows[0]])
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("teacher", ["start", "live"])
def test_loss_is_written_out_by_hand(loaded: Loaded, divergence: str, teacher: str) -> None:
    made, vlm, total = objective(loaded, divergence=divergence, teacher=teacher), loaded.vlm, 0.0
    with torch.no_grad():
        for number, record in enumerate(RECORDS):
            clip = make_clip(number)
            student = loaded.processor.prompt_inputs(BOOK.blind_prompt(), clip)
            told = loaded.processor.prompt_inputs(BOOK.writing_prompt(record.label, hinted=True), clip)
            texts = generate(
                vlm,
                [student],
                max_new_tokens=5,
                temperature=1.0,
                samples=2,
                banned_ids=loaded.processor.special_ids,
                seeds=[seed_of(7, f"3:{2 * number}")],
            )[0]
            for text in texts:
                own = vlm.target_logits([student], [text])[0].log_softmax(-1)
                if teacher == "start":
                    assert vlm.reference is not None
                    with vlm.reference.active():
                        expected = vlm.target_logits([told], [text])[0].log_softmax(-1)
                else:
                    expected = vlm.target_logits([told], [text])[0].log_softmax(-1)
                p, q = (expected, own) if divergence == "forward" else (own, expected)
                mean = float((p.exp() * (p - q)).sum(-1).mean())
                assert mean > 1e-5
                total += mean / 2 / 3
        found = sum(float(made.loss(vlm, batch)) for batch in batches(loaded, made, 2))
    assert found == pytest.approx(total, abs=1e-5)


def test_gradients_do_not_depend_on_how_a_step_is_cut_and_reach_the_student_alone(loaded: Loaded) -> None:
    made = objective(loaded)

    def gradients(size: int, filler: bool = False) -> dict[str, torch.Tensor]:
        loaded.vlm.zero_grad()
        for batch in batches(loaded, made, size, filler):
            made.loss(loaded.vlm, batch).backward()
        return {name: p.grad.clone() for name, p in loaded.vlm.named_parameters() if p.grad is not None}

    whole = gradients(3)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-5
    for other in (gradients(1), gradients(4, filler=True)):
        for name, value in whole.items():
            assert float((other[name] - value).abs().max()) < 1e-6, name


def test_texts_are_drawn_anew_in_each_epoch_and_the_same_when_it_is_repeated(loaded: Loaded) -> None:
    made = objective(loaded)
    (batch,) = batches(loaded, made, 3)
    loaded.vlm.train()
    first = made.write(loaded.vlm, batch, [0, 2])
    assert loaded.vlm.training and any(module.training for module in loaded.vlm.modules()), "dropout is on again"
    again = made.write(loaded.vlm, batch, [0, 2])
    assert all(a.equal(b) for one, other in zip(first, again, strict=True) for a, b in zip(one, other, strict=True))
    made.begin_epoch(4)
    assert not all(
        a.equal(b)
        for one, other in zip(first, made.write(loaded.vlm, batch, [0, 2]), strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_the_hint_never_stands_in_the_students_prompt() -> None:
    rows = SelfDistilObjective(class_weights="balanced").examples(RECORDS[:2], BOOK, [])
    assert [row.prompt.question for row in rows[::2]] == ["Why push, push up, archery?"] * 2
    assert [row.prompt.question for row in rows[1::2]] == ["It shows push. Why?", "It shows archery. Why?"]
    assert [(row.weight, row.answer) for row in rows] == [(1.0, None), (0.0, None)] * 2
    same = Prompts(rationale_question="Why {labels}?", hinted_question="Why {labels}? {label}")
    with pytest.raises(ConfigError, match="nothing to teach"):
        one = PromptBook(Prompts(rationale_question="Why? push", hinted_question="Why? {label}"), BOOK.labels)
        SelfDistilObjective().examples(RECORDS, one, [])
    assert SelfDistilObjective().examples(RECORDS, PromptBook(same, BOOK.labels), [])
