"""Conversation files."""

from __future__ import annotations

import json

import pytest

from rbft.data.formats import Conversations
from rbft.errors import DataError

MESSAGES = {
    "messages": [{"role": "user", "content": "<video>?"}, {"role": "assistant", "content": "Fight"}],
    "videos": ["a.mp4"],
}
LLAVA = {
    "id": "7",
    "video": "/old/b.mp4",
    "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "calm"}],
}
SWIFT = {"query": "<video>?", "response": "calm", "videos": ["c.mp4"]}


def answering(text):
    return {"video": "a.mp4", "messages": [{"role": "assistant", "content": text}]}


def test_the_three_kinds(put):
    root = put("a.mp4", "b.mp4", "c.mp4", **{"train.json": json.dumps([MESSAGES, LLAVA, SWIFT])})
    records = Conversations(strip_prefix="/old/").read(root)
    assert [(r.id, r.path, r.label, r.split) for r in records] == [
        ("a.mp4", "a.mp4", "Fight", "train"),
        ("b.mp4", "b.mp4", "calm", "train"),
        ("c.mp4", "c.mp4", "calm", "train"),
    ]


def test_jsonl_splits_and_lower_case(put):
    root = put("a.mp4", "c.mp4", **{"train.jsonl": json.dumps(MESSAGES), "test.jsonl": json.dumps(SWIFT) + "\n"})
    records = Conversations(train="train.jsonl", test="test.jsonl", lowercase=True).read(root)
    assert [(r.label, r.split) for r in records] == [("fight", "train"), ("calm", "test")]


def test_conclusion_takes_the_last(put):
    text = "Classification: of dogs is hard.\nThey run.\nClassification: Abnormal\n"
    root = put("a.mp4", **{"train.json": json.dumps([answering(text)])})
    assert Conversations(conclusion="Classification:").read(root)[0].label == "Abnormal"
    with pytest.raises(DataError, match=r"item 1: the answer .* is no bare label; set `conclusion`"):
        Conversations().read(root)
    with pytest.raises(DataError, match="item 1: the answer does not hold 'Answer:'"):
        Conversations(conclusion="Answer:").read(root)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({**MESSAGES, "videos": []}, r"expected one path in 'video' or 'videos', found \[\]"),
        ({**MESSAGES, "videos": ["a.mp4", "b.mp4"]}, "expected one path"),
        ({**MESSAGES, "videos": ["/abs/a.mp4"]}, "item 1: the path '/abs/a.mp4' is absolute"),
        ({**MESSAGES, "messages": MESSAGES["messages"][:1]}, "does not end in an answer"),
        ({**MESSAGES, "messages": []}, "does not end in an answer"),
        (answering([{"type": "text", "text": "x"}]), "the last answer must be text"),
        (answering("  "), "is no bare label"),
        ({"video": "a.mp4"}, "there is no column 'response'"),
        ({**MESSAGES, "videos": ["q.mp4"]}, r"not on disk \(q.mp4\)"),
    ],
)
def test_errors(put, item, message):
    with pytest.raises(DataError, match=message):
        Conversations().read(put("a.mp4", **{"train.json": json.dumps([item])}))
