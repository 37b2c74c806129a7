"""Each row of a batch gets its rationales, with where they come from; an empty one is not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.prompts import PromptBook, Prompts
from rbft.rationales.store import prompt_hash
from rbft.rationales.writer import RationaleWriter
from rbft.vlm.batch import Item, collate

BOOK = PromptBook(Prompts(), LabelSet(("push", "push up")))
RECORDS = [VideoRecord("one", "a/one.mp4", "push"), VideoRecord("two", "two.mp4", "push up")]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"))


def write(loaded: Loaded, writer: RationaleWriter, seed: int = 0):
    examples = writer.examples(RECORDS, BOOK)
    items = [
        [Item(i, loaded.processor.prompt_inputs(example.prompt, make_clip(i)), torch.empty(0, dtype=torch.long))]
        for i, example in enumerate(examples)
    ]
    return writer.write(loaded.vlm, loaded.processor, BOOK, collate(items), examples, "me@1", seed)


def test_questions_follow_the_hint_policy():
    for hint in ("blind", "hint_stripped", "hint_kept"):
        book = PromptBook(Prompts(hint=hint), BOOK.labels)
        examples = RationaleWriter().examples(RECORDS, book)
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
