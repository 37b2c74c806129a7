"""Each row of a batch gets its rationales, with where they come from; an empty one is not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.store import prompt_hash
from rbft.rationales.writer import Attempt, RationaleWriter, Regenerate
from rbft.vlm.batch import Item, collate

BOOK = PromptBook(Prompts(), LabelSet(("push", "push up")))
RECORDS = [VideoRecord("one", "a/one.mp4", "push"), VideoRecord("two", "two.mp4", "push up")]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"))


def write(loaded: Loaded, writer: RationaleWriter, seed: int = 0, number: int = 0):
    attempt = writer.attempts(BOOK.prompts.hint)[number]
    examples = writer.examples(RECORDS, BOOK, attempt)
    items = [
        [Item(i, loaded.processor.prompt_inputs(example.prompt, make_clip(i)), torch.empty(0, dtype=torch.long))]
        for i, example in enumerate(examples)
    ]
    return writer.write(loaded.vlm, loaded.processor, BOOK, collate(items), examples, "me@1", seed, attempt)


def test_questions_follow_the_hint_policy():
    for hint in ("blind", "hint_stripped", "hint_kept"):
        book = PromptBook(Prompts(hint=hint), BOOK.labels)
        writer = RationaleWriter()
        examples = writer.examples(RECORDS, book, writer.attempts(hint)[0])
        assert [example.record for example in examples] == RECORDS
        assert [example.prompt for example in examples] == [book.writing_prompt(r.label) for r in RECORDS]
        assert [example.answer for example in examples] == [None, None]


def test_rationales_say_where_they_come_from(loaded):
    writer = RationaleWriter(max_new_tokens=6)
    written = write(loaded, writer)
    assert [(r.id, r.sample, r.video, r.label) for r in written] == [
        ("one", 0, "a/one.mp4", "push"),
        ("two", 0, "two.mp4", "push up"),
    ]
    assert {(r.hint, r.model, r.weight) for r in written} == {("hint_stripped", "me@1", 1.0)}
    assert [r.prompt_hash for r in written] == [prompt_hash(BOOK.writing_prompt(r.label)) for r in RECORDS]
    assert all(r.truncated and r.kept and r.text == r.written.strip() for r in written)


def test_samples_are_numbered_and_follow_the_seed(loaded):
    writer = RationaleWriter(samples=3, temperature=1.2, max_new_tokens=6)
    first, again, other = (write(loaded, writer, seed) for seed in (1, 1, 2))
    assert [r.key for r in first] == [(id, sample) for id in ("one", "two") for sample in range(3)]
    assert first == again != other
    # each video has its own, so what is written does not depend on how clips were batched
    assert [r.text for r in first[:3]] != [r.text for r in first[3:]]


def test_attempts_follow_from_hint_and_regeneration():
    writer = RationaleWriter(samples=2, temperature=0.5, regenerate=Regenerate(2, 0.9))
    plain, kept, blind = (writer.attempts(hint) for hint in ("hint_stripped", "hint_kept", "blind"))
    assert plain == kept == [Attempt(0, True, 0.5), Attempt(1, True, 0.9), Attempt(2, True, 0.9)]
    assert blind == [Attempt(0, False, 0.5), Attempt(1, False, 0.9), Attempt(2, False, 0.9)]
    assert writer.attempts("blind_then_hint") == [
        Attempt(0, False, 0.5),
        Attempt(1, True, 0.5, unlabelled=False),
        Attempt(2, True, 0.9),
        Attempt(3, True, 0.9),
    ]
    other = RationaleWriter(regenerate=Regenerate(1, 0.9, "blind"))
    assert [attempt.hinted for attempt in other.attempts("blind_then_hint")] == [False, True, False]
    assert [attempt.hinted for attempt in RationaleWriter().attempts("blind_then_hint")] == [False, True]
    assert RationaleWriter().attempts("hint_stripped") == [Attempt(0, True, 0.0)]
    assert [list(writer.numbers(attempt)) for attempt in blind] == [[0, 1], [2, 3], [4, 5]]


def test_a_later_attempt_draws_other_texts_under_other_numbers(loaded):
    writer = RationaleWriter(samples=2, temperature=1.2, max_new_tokens=6, regenerate=Regenerate(2, 1.2))
    first, second, third = (write(loaded, writer, 1, number) for number in range(3))
    assert [r.sample for r in second] == [2, 3, 2, 3] and [r.sample for r in third] == [4, 5, 4, 5]
    texts = [{r.text for r in rationales} for rationales in (first, second, third)]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    # the first one is what a run without further attempts writes
    assert first == write(loaded, RationaleWriter(samples=2, temperature=1.2, max_new_tokens=6), 1)


def test_the_temperature_is_that_of_the_attempt(loaded, monkeypatch):
    asked = []

    def noting(vlm, prompts, *, temperature, seeds, **_):
        asked.append((temperature, tuple(seeds)))
        return [[torch.tensor([5])] for _ in prompts]

    monkeypatch.setattr("rbft.rationales.writer.generate", noting)
    writer = RationaleWriter(temperature=0.0, regenerate=Regenerate(1, 0.9))
    for number in range(2):
        write(loaded, writer, 3, number)
    assert [temperature for temperature, _ in asked] == [0.0, 0.9]
    assert len({seed for _, seeds in asked for seed in seeds}) == 4


def test_a_video_without_label_is_never_asked_with_one():
    book = PromptBook(Prompts(hint="hint_kept"), BOOK.labels)
    records = [*RECORDS, VideoRecord("three", "three.mp4", "")]
    writer = RationaleWriter(regenerate=Regenerate(1, 0.9, "hinted"))
    for attempt in writer.attempts("hint_kept"):
        prompts = [example.prompt for example in writer.examples(records, book, attempt)]
        assert prompts == [*(book.writing_prompt(r.label) for r in RECORDS), book.blind_prompt()]


def answering(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, text: str, end: bool):
    ids = loaded.processor._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = torch.tensor([*ids, *loaded.vlm.end_ids[:1]] if end else ids)
    monkeypatch.setattr("rbft.rationales.writer.generate", lambda vlm, prompts, **_: [[answer] for _ in prompts])
    return write(loaded, RationaleWriter())


def test_texts_are_split_and_read(loaded, monkeypatch):
    one, other = answering(loaded, monkeypatch, "He moves it.\nClassification: push up", end=True)
    assert (one.text, one.stated, one.truncated, one.kept, one.reason) == ("He moves it.", "push up", False, True, "")
    assert other.written == "He moves it.\nClassification: push up"


def test_a_conclusion_alone_is_no_rationale(loaded, monkeypatch):
    one, _ = answering(loaded, monkeypatch, "Classification: push", end=True)
    assert (one.text, one.stated, one.kept, one.reason) == ("", "push", False, "empty")


def test_a_text_without_end_was_cut(loaded, monkeypatch):
    one, _ = answering(loaded, monkeypatch, "He moves", end=False)
    assert one.truncated


def test_texts_say_how_they_were_asked_for_and_whose_class_they_bear(loaded, monkeypatch):
    writer = RationaleWriter()
    book = PromptBook(Prompts(hint="hint_kept"), BOOK.labels)
    records = [RECORDS[0], VideoRecord("new", "new.mp4", ""), VideoRecord("odd", "odd.mp4", "")]
    texts = iter(["He goes.", "He bends.\nClassification: push up", "He bends."])
    monkeypatch.setattr("rbft.rationales.writer.generate", lambda vlm, prompts, **_: [[torch.tensor([5])]] * 3)
    monkeypatch.setattr(type(loaded.processor), "decode", lambda self, ids: next(texts))
    attempt = writer.attempts("hint_kept")[0]
    examples = writer.examples(records, book, attempt)
    batch = collate(
        [
            [Item(0, loaded.processor.prompt_inputs(e.prompt, make_clip(0)), torch.empty(0, dtype=torch.long))]
            for e in examples
        ]
    )
    found = writer.write(loaded.vlm, loaded.processor, book, batch, examples, "me", 0, attempt)
    assert [(r.label, r.labelled, r.hint, r.stated) for r in found] == [
        ("push", True, "hint_kept", None),
        ("push up", False, "blind", "push up"),
        ("", False, "blind", None),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, r"attempts: 0 must be at least 1"),
        ({"temperature": 0.0}, r"temperature: 0\.0 must be above 0; at 0 every attempt writes the same text"),
        ({"temperature": float("nan")}, r"temperature: nan must be above 0"),
    ],
)
def test_wrong_regeneration_is_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"^model\.writer\.regenerate\.{message}"):
        Regenerate(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples and max_new_tokens must be at least 1"),
        ({"max_new_tokens": 0}, "samples and max_new_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"top_p": 0.0}, r"top_p lies in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p lies in \(0, 1\]"),
        ({"samples": 2}, r"2 samples at temperature 0 would all be the same text"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"^model\.writer: .*{message}"):
        RationaleWriter(**settings)


def test_a_control_token_in_plain_letters_makes_a_text_worthless(loaded, monkeypatch):
    token = loaded.processor.special_tokens[0]
    monkeypatch.setattr(type(loaded.processor), "decode", lambda self, ids: f"He says {token} and goes")
    one, _ = answering(loaded, monkeypatch, "He says", end=True)
    assert (one.text, one.kept, one.reason) == ("", False, "control token")
    assert token in one.written
