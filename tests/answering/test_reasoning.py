"""Labels scored after the model's own words score what full passes over question, words and label give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import Loaded, Plain, load, make_clip

from rbft.answering.reasoning import Reasoner
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.vlm.generation import Sampling, generate
from rbft.vlm.label_scorer import LabelScorer, Scoring
from rbft.vlm.model import VLM

NAMES = ("push", "push up", "the person jumps")
BOOK = PromptBook(Prompts(target_order="rationale"), LabelSet(NAMES))
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=8))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "smolvlm"])
def folder(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Path:
    return family_folder(request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


def reasoner(loaded: Loaded, samples: int = 1, temperature: float = 0.0) -> Reasoner:
    targets = tuple(loaded.processor.target_ids(BOOK.label_prompt(), text) for text in BOOK.texts)
    scorer = LabelScorer.of(targets, BOOK.texts, Scoring())
    return Reasoner(loaded.processor, BOOK, scorer, Sampling(samples, temperature, max_new_tokens=8))


def test_probabilities_are_those_of_full_passes(folder: Path, loaded: Loaded) -> None:
    prompts = [loaded.processor.prompt_inputs(BOOK.blind_prompt(), clip) for clip in CLIPS]
    found = reasoner(loaded)(loaded.vlm, prompts, ["one", "two"], seed=0)
    plain, question = Plain(folder), BOOK.blind_prompt().question
    for clip, answer in zip(CLIPS, found, strict=True):
        (text,) = answer.texts
        assert text
        wholes = [loaded.target(question, BOOK.concluded(text, name)) for name in NAMES]
        expected = plain.scores(question, [clip], wholes)[0].softmax(-1)
        assert answer.probabilities == pytest.approx(expected.tolist(), abs=1e-5)
        assert answer.tokens <= 8


def test_several_rationales_are_averaged_and_follow_the_seed(loaded: Loaded) -> None:
    prompts = [loaded.processor.prompt_inputs(BOOK.blind_prompt(), clip) for clip in CLIPS]
    several = reasoner(loaded, samples=3, temperature=1.5)
    first, again, other = (several(loaded.vlm, prompts, ["one", "two"], seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [answer.texts for answer in first] != [answer.texts for answer in other]
    assert [len(answer.texts) for answer in first] == [3, 3]
    assert len(set(first[0].texts)) > 1
    alone = several(loaded.vlm, prompts[1:], ["two"], seed=1)
    assert alone[0].texts == first[1].texts
    assert alone[0].probabilities == pytest.approx(first[1].probabilities, abs=1e-5)
    # the mean of the three, each scored as a single one
    one = reasoner(loaded)
    singles = []
    for text in first[0].texts:
        after, labels = one.concluder.after(prompts[0], text)
        scores = LabelScorer(tuple(labels))(loaded.vlm, [after])
        singles.append(scores[0].double().softmax(-1))
    assert first[0].probabilities == pytest.approx(torch.stack(singles).mean(0).tolist(), abs=1e-5)


def test_no_special_token_and_no_conclusion_gets_into_the_words(loaded: Loaded) -> None:
    prompts = [loaded.processor.prompt_inputs(BOOK.blind_prompt(), CLIPS[0])]
    found = reasoner(loaded, samples=4, temperature=5.0)(loaded.vlm, prompts, ["one"], seed=0)
    for text in found[0].texts:
        assert not any(token in text for token in loaded.processor.special_tokens)
        assert "Classification:" not in text


def test_a_clip_is_encoded_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = VLM._encoded

    def counted(self: VLM, prompt):
        if prompt.encoded is None:
            encoded.append(1)
        return original(self, prompt)

    monkeypatch.setattr(VLM, "_encoded", counted)
    prompts = [loaded.processor.prompt_inputs(BOOK.blind_prompt(), clip) for clip in CLIPS]
    reasoner(loaded, samples=2, temperature=1.0)(loaded.vlm, prompts, ["one", "two"], seed=0)
    assert len(encoded) == 2
    generate(loaded.vlm, prompts[:1], max_new_tokens=1)
    assert len(encoded) == 3


@pytest.mark.parametrize("normalize", ["token", "byte"])
def test_what_labels_share_is_in_neither_part_of_a_normalised_score(loaded: Loaded, normalize: Any) -> None:
    """Of labels with a shared beginning only the rest is scored, so only the rest may divide it."""
    book = PromptBook(Prompts(), LabelSet(("push", "push up fast")))
    targets = tuple(loaded.processor.target_ids(book.label_prompt(), text) for text in book.texts)
    scorer = LabelScorer.of(targets, book.texts, Scoring(normalize=normalize))
    asked = Reasoner(loaded.processor, book, scorer, Sampling(1, 0.0, max_new_tokens=8))
    prompts = [loaded.processor.prompt_inputs(book.blind_prompt(), CLIPS[0])]
    (found,) = asked(loaded.vlm, prompts, ["one"], seed=0)
    after, labels = asked.concluder.after(prompts[0], found.texts[0])
    assert len(labels[0]) < len(targets[0]), "the first tokens are shared"
    sums = LabelScorer(tuple(labels))(loaded.vlm, [after])[0].double()
    sizes = [len(ids) if normalize == "token" else max(1, len(loaded.processor.decode(ids).encode())) for ids in labels]
    expected = (sums / torch.tensor(sizes, dtype=torch.float64)).softmax(-1)
    assert found.probabilities == pytest.approx(expected.tolist(), abs=1e-5)
