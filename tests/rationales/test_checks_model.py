"""The checks that ask a model: what it is fed, and that its scores are those of plain passes over the same texts."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import t as student
from tests.support.models import Loaded, Plain, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError
from rbft.rationales.checks.base import Judge, Material
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding, Margin
from rbft.rationales.store import Rationale
from rbft.vlm.batch import PromptInputs
from rbft.vlm.model import VLM
from rbft.vlm.prompt import Prompt

LABELS = LabelSet(("push", "push up"))
BOOK = PromptBook(Prompts(judge_question="{rationale} which: {labels}?", rationale_question="why?"), LABELS)
CLIPS = {f"{number}.mp4": make_clip(number, frames=4 + 2 * (number % 2)) for number in range(6)}


@pytest.fixture(scope="module")
def folder(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)


def judge(loaded: Loaded, batch_size: int = 4) -> Judge:
    return Judge(
        loaded.vlm, loaded.processor, lambda video, p: loaded.processor.prompt_inputs(p, CLIPS[video]), batch_size
    )


def material(loaded: Loaded, texts: list[str], batch_size: int = 4) -> Material:
    made = [
        Rationale(video, 0, video, LABELS.names[i % 2], "", "blind", "me", text, None, text, False)
        for i, (video, text) in enumerate(zip(CLIPS, texts, strict=False))
    ]
    return Material(tuple(made), BOOK, judge(loaded, batch_size))


TEXTS = ["a man moves", "he jumps over a wooden door", "push", "the person walks", "two people", "it moves fast"]


def test_the_model_reads_the_rationale_with_label_words_hidden(loaded, monkeypatch):
    asked: list[str] = []
    original = type(loaded.processor).prompt_inputs

    def noted(self, prompt: Prompt, clip, **settings) -> PromptInputs:
        assert not prompt.video
        assert clip is None
        asked.append(prompt.question)
        return original(self, prompt, clip, **settings)

    monkeypatch.setattr(type(loaded.processor), "prompt_inputs", noted)
    Contradiction().scores(material(loaded, ["he does a push up", "a man moves"]))
    assert asked[:3] == [f"{text} which: push, push up?" for text in ("", "___", "N/A")], "texts without content"
    assert "Classification: push up which: push, push up?" in asked, "texts that do nothing but name a class"
    assert asked[-2:] == ["he does a ___ which: push, push up?", "a man moves which: push, push up?"]
    asked.clear()
    Contradiction(mask_labels=False).scores(material(loaded, ["he does a push up"]))
    assert asked[-1] == "he does a push up which: push, push up?"


@torch.no_grad()
def test_its_score_is_its_own_class_against_the_other(folder, loaded):
    """A full pass of transformers alone over each text and each class."""
    plain = Plain(folder)

    def likelihoods(text: str) -> list[float]:
        question = BOOK.judge_prompt(text)
        sums = []
        for name in BOOK.texts:
            start, whole = loaded.processor.render(question), loaded.processor.render(question, name)
            head = plain.processor.tokenizer(start, add_special_tokens=False)["input_ids"]
            tail = loaded.processor.target_ids(question, name).tolist()
            assert whole.startswith(start)
            logits = plain.model(input_ids=torch.tensor([head + tail])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[len(head) - 1 + i, token]) for i, token in enumerate(tail)))
        return sums

    empty = torch.tensor([likelihoods(text) for text in ("", "___", "N/A")]).softmax(-1).mean(0).log().tolist()
    expected = []
    for place, text in enumerate(TEXTS):
        sums = [found - prior for found, prior in zip(likelihoods(text.replace("push", "___")), empty, strict=True)]
        own, other = sums[place % 2], sums[1 - place % 2]
        expected.append(1 / (1 + math.exp(other - own)))
    for batch_size in (1, 4):
        found = Contradiction().scores(material(loaded, TEXTS, batch_size))
        assert found == pytest.approx(expected, abs=1e-4)


def test_texts_are_read_the_same_after_a_video(loaded):
    """Some models keep the position offset of the last video they saw."""
    before = Contradiction().scores(material(loaded, TEXTS))
    Grounding(others=4).scores(material(loaded, TEXTS))
    assert Contradiction().scores(material(loaded, TEXTS)) == before


def test_the_margin_is_of_full_passes(folder, loaded):
    plain, question = Plain(folder), BOOK.blind_prompt()
    found = Grounding(others=5).margins(material(loaded, TEXTS, batch_size=4))
    for place, (text, video, margin) in enumerate(zip(TEXTS, CLIPS, found, strict=True)):
        target = loaded.processor.target_ids(question, text)[:-1]
        sums = {name: float(plain.log_probs(question.question, clip, target).sum()) for name, clip in CLIPS.items()}
        assert margin is not None, place
        assert margin.own == pytest.approx(sums.pop(video), abs=1e-3)
        assert sorted(margin.others) == pytest.approx(sorted(sums.values()), abs=1e-3)
        assert margin.tokens == len(target)


def test_each_clip_is_encoded_once_and_once_blank(loaded, monkeypatch):
    encoded: list[PromptInputs] = []
    original = VLM._encoded

    def noted(self, prompt: PromptInputs):
        encoded.append(prompt)
        return original(self, prompt)

    monkeypatch.setattr(VLM, "_encoded", noted)
    Grounding(others=5).scores(material(loaded, TEXTS, batch_size=4))
    blank = [prompt for prompt in encoded if not prompt.vision["pixel_values_videos"].any()]
    assert len(encoded) == 2 * len(CLIPS)
    assert len(blank) == len(CLIPS)


def test_too_few_videos_give_no_score(loaded):
    assert Grounding(others=4).scores(material(loaded, TEXTS[:4])) == [None] * 4
    assert None not in Grounding(others=4).scores(material(loaded, TEXTS[:5]))


def test_videos_meet_their_own_class_and_others():
    made = [
        Rationale(f"{c}{i}", 0, f"{c}{i}", c, "", "", "", "x", None, "x", False) for c in "abcdefgh" for i in range(20)
    ]
    check = Grounding(others=12)
    groups = list(check._groups(made))
    assert sorted(video for group in groups for video in group) == sorted(r.video for r in made)
    assert list(check._groups(made[::-1])) == groups, "whatever the order"
    for group in groups:
        assert len(group) > 12
        for video in group:
            assert sum(other[0] == video[0] for other in group) >= 6


def test_margins_as_scores():
    others = (-50.0, -40.0, -45.0, -55.0, -60.0)
    strong = Margin(-5.0, others, -70.0, 10)
    spread = statistics.stdev(others) * math.sqrt(1 + 1 / 5)
    assert strong.score == pytest.approx(student.cdf(45 / spread, 4))
    assert strong.score > 0.95
    assert (strong.over_others, strong.over_blank) == (4.5, 6.5)
    assert dataclasses.replace(strong, own=-50.0).score == pytest.approx(0.5)
    assert dataclasses.replace(strong, blank=-5.0).score == 0, "likely without any video"
    assert dataclasses.replace(strong, others=(-50.0,) * 5).score == 1


def test_videos_are_needed(loaded):
    without = dataclasses.replace(material(loaded, TEXTS), judge=Judge(loaded.vlm, loaded.processor))
    with pytest.raises(ConfigError, match="'grounding' watches the videos"):
        Grounding().scores(without)
    with pytest.raises(ConfigError, match="others of Grounding is 3"):
        Grounding(others=3)


class _Leaning:
    """In the place of a judge's answers: each text's likelihoods, all of them leaning to the first class."""

    def __init__(self, lean: float, reads: bool) -> None:
        self.lean, self.reads = lean, reads

    def __call__(self, judge, book, texts, videos):
        rows = []
        for text in texts:
            says = [0.0, 0.0]
            if self.reads and text not in ("", "___", "N/A"):
                says["fall" in text or "down" in text] = 2.0
            rows.append([says[0] + self.lean, says[1]])
        return torch.tensor(rows, dtype=torch.float64)


def judged(monkeypatch, loaded: Loaded, answers: _Leaning) -> tuple[Contradiction, list[float | None]]:
    book = PromptBook(Prompts(), LabelSet(("rest", "fall")))
    texts = ["a man sits"] * 6 + ["a man goes down"] * 6
    rows = tuple(
        Rationale(str(i), 0, str(i), book.labels.names[i // 6], "", "blind", "me", text, None, text, False)
        for i, text in enumerate(texts)
    )
    check = Contradiction()
    monkeypatch.setattr(check, "_ask", answers)
    return check, check.scores(Material(rows, book, judge(loaded)))


@pytest.mark.parametrize("lean", [0.0, 10.0, -10.0])
def test_what_a_judge_answers_to_nothing_is_taken_out(monkeypatch, loaded, lean):
    """Leaning by 10 nats it says the first class of every text; what it reads is worth 2."""
    check, scores = judged(monkeypatch, loaded, _Leaning(lean, reads=True))
    assert scores == pytest.approx([1 / (1 + math.exp(-2))] * 12)
    assert check.doubts == []


def test_a_judge_that_reads_nothing_is_told_of(monkeypatch, loaded):
    check, _ = judged(monkeypatch, loaded, _Leaning(10.0, reads=False))
    blind, one_sided = check.doubts
    assert "finds the class in 4 of 8 texts that do nothing but name one, and guessing finds 4" in blind
    assert "the judge says 'rest' of 100.0% of the texts, and 50.0% are of that class" in one_sided
