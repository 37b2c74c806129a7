"""Something-Something V2's JSON files."""

from __future__ import annotations

import json

import pytest

from rbft.data.formats import SSv2
from rbft.errors import DataError


def item(clip, template, caption):
    return {"id": clip, "label": caption, "template": template, "placeholders": []}


FILES = {
    "something-something-v2-labels.json": json.dumps(
        {"Holding something": "1", "Approaching something with your camera": "0"}
    ),
    "something-something-v2-train.json": json.dumps(
        [
            item("1", "Holding [something]", "holding a cup"),
            item("2", "Approaching [something] with your camera", "near cat"),
        ]
    ),
    "something-something-v2-validation.json": json.dumps([item("3", "Holding [something]", "holding a pen")]),
}
VIDEOS = [f"20bn-something-something-v2/{i}.webm" for i in (1, 2, 3)]


def test_read(put):
    root = put(*VIDEOS, **FILES)
    records = SSv2().read(root)
    assert [(r.id, r.path, r.label, r.split) for r in records] == [
        ("1", VIDEOS[0], "Holding something", "train"),
        ("2", VIDEOS[1], "Approaching something with your camera", "train"),
        ("3", VIDEOS[2], "Holding something", "test"),
    ]
    assert records[0].text == {"caption": "holding a cup"}
    assert SSv2().label_names(root) == ("Approaching something with your camera", "Holding something")
    as_val = SSv2(val="something-something-v2-validation.json", test=None).read(root)
    assert [record.split for record in as_val] == ["train", "train", "val"]


def test_errors(put):
    root = put(*VIDEOS[:2], **FILES)
    with pytest.raises(DataError, match=r"1 of 3 listed videos are not on disk \(3\)"):
        SSv2().read(root)
    put(**{"something-something-v2-train.json": json.dumps([item("1", "Eating [something]", "x")])})
    with pytest.raises(DataError, match=r"train\.json, item 1: the class 'Eating something' is not in"):
        SSv2().read(root)
    put(**{"something-something-v2-labels.json": '{"a": "1", "b": "2"}'})
    with pytest.raises(DataError, match="numbers the classes 0, 1, 2"):
        SSv2().read(root)
