"""The policy gradient's rewards, advantages and loss are those written out by hand, however a step is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.objectives.policy import PolicyObjective, advantages_of
from rbft.rationales.writer import seed_of
from rbft.vlm.base_weights import Reference, base_state
from rbft.vlm.batch import Batch, Item, PromptInputs, collate
from rbft.vlm.generation import generate
from rbft.vlm.tuning import FullFineTuning, trained_state

NAMES = ("a", "d", "f")  # a model of random weights is sure of none of them
BOOK = PromptBook(Prompts(rationale_question="Why {labels}?"), LabelSet(NAMES))
RECORDS = [VideoRecord(str(n), f"{n}.mp4", name) for n, name in enumerate(("a", "f", "d"))]
NONE = torch.empty(0, dtype=torch.long)
OTHERS = (1, 2, 0)  # the next video of another class


@pytest.fixture
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    made = load(family_folder("qwen2_5_vl"), FullFineTuning())
    made.vlm.reference = Reference(made.vlm.model, base_state(made.vlm.model))
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(made.vlm.model).values():
        value.add_(torch.randn(value.shape, generator=generator) * 0.02)
    return made


def objective(loaded: Loaded, **settings: object) -> PolicyObjective:
    made = PolicyObjective(**{"samples": 3, "max_new_tokens": 5, **settings})  # type: ignore[arg-type]
    made.connect(loaded.processor, BOOK, 7)
    made.begin_epoch(2)
    return made


def question(loaded: Loaded, number: int) -> PromptInputs:
    return loaded.processor.prompt_inputs(BOOK.blind_prompt(), make_clip(number))


def batches(loaded: Loaded, made: PolicyObjective, size: int, filler: bool = False) -> list[Batch]:
    """Micro-batches of one step, as the data set makes them."""
    rows = []
    for number, example in enumerate(made.examples(RECORDS, BOOK, [])):
        prompt = question(loaded, number)
        if example.contrast is not None:
            prompt = replace(prompt, other=question(loaded, int(example.contrast.id)))
        rows.append([Item(number, prompt, NONE, example.weight, 3.0, example.value)])
    if filler:
        rows.append([replace(rows[0][0], weight=0.0)])
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


def chance(loaded: Loaded, number: int, body: str, label: str) -> float:
    """Probability of a class after a text, by a plain pass over each class."""
    prompt, scores = question(loaded, number), []
    for name in NAMES:
        target = loaded.processor.target_ids(BOOK.blind_prompt(), BOOK.concluded(body, name))
        scores.append(loaded.vlm.target_log_probs([prompt], [target])[0].double().sum())
    return float(torch.stack(scores).softmax(0)[NAMES.index(label)])


@pytest.mark.parametrize("how", ["mean", "leave_one_out", "standardized"])
def test_loss_is_written_out_by_hand(loaded: Loaded, how: str) -> None:
    settings = {"advantage": how, "grounding": 0.5, "format_reward": 0.1, "length_penalty": 0.2, "anchor": 0.3}
    made, vlm, total = objective(loaded, **settings), loaded.vlm, 0.0
    assert vlm.reference is not None
    with torch.no_grad():
        for number, record in enumerate(RECORDS):
            prompt = question(loaded, number)
            texts = generate(
                vlm,
                [prompt],
                max_new_tokens=5,
                temperature=1.0,
                samples=3,
                banned_ids=loaded.processor.special_ids,
                seeds=[seed_of(7, f"2:{number}")],
            )[0]
            rewards, terms = [], []
            for text in texts:
                body = BOOK.parse(loaded.processor.decode(text)).body
                reward = chance(loaded, number, body, record.label)
                reward -= 0.5 * chance(loaded, OTHERS[number], body, record.label)
                # this model states no class; a text as long as may be loses the most
                rewards.append(reward - 0.2 * len(text) / 5)
                own = vlm.target_log_probs([prompt], [text])[0]
                with vlm.reference.active():
                    before = vlm.target_log_probs([prompt], [text])[0]
                gap = before - own
                terms.append((own.sum(), (gap.exp() - gap - 1).sum(), len(text)))
            mean = sum(rewards) / 3
            spread = float(torch.tensor(rewards, dtype=torch.float64).std())
            assert spread > 1e-4
            for reward, (own, divergence, length) in zip(rewards, terms, strict=True):
                scale = {"mean": 1.0, "leave_one_out": 1.5, "standardized": 1 / (spread + 1e-4)}[how]
                divisor = length if how == "standardized" else 5
                total += float(-(reward - mean) * scale * own + 0.3 * divergence) / divisor / 3 / 3
        found = sum(float(made.loss(vlm, batch)) for batch in batches(loaded, made, 2))
    assert found == pytest.approx(total, rel=1e-3, abs=2e-5)


def test_gradients_do_not_depend_on_how_a_step_is_cut(loaded: Loaded) -> None:
    made = objective(loaded, grounding=0.5)

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


def test_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert advantages_of(rewards, "mean").tolist() == [[0.5, -0.5], [0.0, 0.0]]
    assert advantages_of(rewards, "leave_one_out").tolist() == [[1.0, -1.0], [0.0, 0.0]], "against the other one"
    deviation = 0.5**0.5  # of a sample of two
    assert advantages_of(rewards, "standardized")[0, 0] == pytest.approx(0.5 / (deviation + 1e-4), rel=1e-5)
    assert advantages_of(rewards, "standardized")[1].tolist() == [0.0, 0.0]


def test_an_exact_reward_is_for_a_text_that_states_the_class(loaded: Loaded) -> None:
    made = objective(loaded, reward="exact", format_reward=0.25, samples=2)
    (batch,) = batches(loaded, made, 3)
    ids = [
        [loaded.processor.target_ids(BOOK.blind_prompt(), text) for text in texts]
        for texts in (
            (BOOK.concluded("An arm.", "a"), "An arm."),
            (BOOK.concluded("A bow.", "a"), BOOK.concluded("A bow.", "f")),
            ("Nothing", "nothing"),
        )
    ]
    assert made._rewards(loaded.vlm, batch, ids).tolist() == [[1.25, 0.0], [0.25, 1.25], [0.0, 0.0]]
    assert made.figures["reward"] == pytest.approx(2.75 / 6) and made.figures["stated_right"] == pytest.approx(2 / 6)


def test_rows_carry_the_class_and_the_video_to_swap_with() -> None:
    rows = PolicyObjective(grounding=1.0).examples(RECORDS, BOOK, [])
    assert [row.value for row in rows] == [0.0, 2.0, 1.0]
    assert [row.contrast for row in rows] == [RECORDS[other] for other in OTHERS]
    assert {row.contrast for row in PolicyObjective().examples(RECORDS, BOOK, [])} == {None}
    with pytest.raises(ConfigError, match="one class"):
        PolicyObjective(grounding=1.0).examples(RECORDS[:1], BOOK, [])


@pytest.mark.parametrize(
    "settings",
    [{"samples": 1}, {"grounding": -1.0}, {"length_penalty": -0.1}, {"grounding": 1.0, "reward": "exact"}],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"model.objective.{next(iter(settings))}"):
        PolicyObjective(**settings)  # type: ignore[arg-type]
