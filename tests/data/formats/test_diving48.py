"""Diving48's JSON files."""

from __future__ import annotations

import json

import pytest

from rbft.data.formats import Diving48
from rbft.data.labels import LabelSet, spoken
from rbft.errors import DataError

VOCABULARY = [
    ["Back", "15som", "05Twis", "FREE"],
    ["Inward", "Dive", "NoTwis", "PIKE"],
    ["Reverse", "25som", "NoTwis", "TUCK"],
]
FILES = {
    "Diving48_vocab.json": json.dumps(VOCABULARY),
    "Diving48_V2_train.json": json.dumps([{"vid_name": "-mm_00155", "label": 0, "start_frame": 0, "end_frame": 48}]),
    "Diving48_V2_test.json": json.dumps([{"vid_name": "_8V_00000", "label": 2, "start_frame": 0, "end_frame": 48}]),
}


def test_read(put):
    root = put("rgb/-mm_00155.mp4", "rgb/_8V_00000.mp4", **FILES)
    names = Diving48().label_names(root)
    assert names == (
        "back, 1.5 somersaults, 0.5 twists, free",
        "inward, dive, no twist, pike",
        "reverse, 2.5 somersaults, no twist, tuck",
    )
    assert tuple(map(spoken, LabelSet(names).names)) == names
    records = Diving48().read(root)
    assert [(r.id, r.path, r.label, r.split) for r in records] == [
        ("-mm_00155", "rgb/-mm_00155.mp4", names[0], "train"),
        ("_8V_00000", "rgb/_8V_00000.mp4", names[2], "test"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "Diving48_V2_train.json",
            '[{"vid_name": "a", "label": 3}]',
            "item 1: the label '3' is not a number from 0 to 2",
        ),
        ("Diving48_V2_train.json", '[{"vid_name": "a"}]', "item 1: there is no column 'label'"),
        ("Diving48_V2_train.json", '{"a": 1}', "expected a list of objects, found dict"),
        ("Diving48_V2_train.json", "[\n{]", "row 2: not valid JSON"),
        ("Diving48_vocab.json", '[["a"], "b"]', "class 1: expected a list of terms, found 'b'"),
    ],
)
def test_errors(put, file, content, message):
    with pytest.raises(DataError, match=message):
        Diving48().read(put("a.mp4", **{**FILES, file: content}))
