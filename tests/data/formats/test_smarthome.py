"""SmartHome-Bench's tables and the lists of the RB-FT authors."""

from __future__ import annotations

import json

import pytest

from rbft.data.formats import SmartHomeBench
from rbft.errors import DataError

HEADER = "Title,Category,Anomaly Tag,Video Description,Reasoning behind Normality/Anomalies\n"
TAGS = {1: "Normal", 2: "Vague Abnormal", 3: "Abnormal", 4: "Normal", 5: "Abnormal"}
TABLE = HEADER + "".join(
    f'smartbench_{n:04d},"Wildlife, Pet Monitoring",{tag},"Clip {n}, ""quoted"".",Because {n}.\n'
    for n, tag in TAGS.items()
)
SOURCES = (
    "Video Name,Title,URL,,,\n"
    "smartbench_0001,ring_1,https://www.youtube.com/watch?v=fVVAeFISp2c,,,\n"
    "smartbench_0002,ring_2,https://www.youtube.com/shorts/kHsRbQW7_ac,,,\n"
    "smartbench_0003,ring_3,https://www.youtube.com/watch?v=fVVAeFISp2c&ab_channel=X ,,,\n"
    "smartbench_0004,package_1,privacy url,,,\n"
    ",,,,,\n"
)
CLIPS = [f"Videos/Trim_Videos/raw_video/smartbench_{n:04d}.mp4" for n in TAGS]


@pytest.fixture
def root(put):
    return put(*CLIPS, **{"Videos/Video_Annotation.csv": TABLE, "Videos/Video_url.csv": SOURCES})


def test_records(root):
    first, second, third, fourth, fifth = SmartHomeBench().read(root)
    assert (first.id, first.path, first.label, first.split) == ("smartbench_0001", CLIPS[0], "normal", None)
    assert first.text == {
        "category": "Wildlife, Pet Monitoring",
        "description": 'Clip 1, "quoted".',
        "reasoning": "Because 1.",
    }
    assert [second.label, third.label] == ["abnormal", "abnormal"]
    assert first.group == third.group == "fVVAeFISp2c"
    assert second.group == "kHsRbQW7_ac"
    assert fourth.group is fifth.group is None
    assert {record.group for record in SmartHomeBench(sources=None).read(root)} == {None}


def test_vague(root):
    dropped = SmartHomeBench(vague="drop")
    assert [record.id[-1] for record in dropped.read(root)] == ["1", "3", "4", "5"]
    own = SmartHomeBench(vague="own_class")
    assert own.read(root)[1].label == "vague_abnormal"
    assert own.label_names(root) == ("normal", "abnormal", "vague_abnormal")
    assert dropped.label_names(root) == SmartHomeBench().label_names(root) == ("normal", "abnormal")


def test_lists_as_ids_and_as_conversations(put, root):
    # the label of the record is the table's, whatever other fields of the conversation say
    conversation = {
        "id": "smartbench_0004-anomaly-detection",
        "video": "/other/machine/smartbench_0004.mp4",
        "ground_truth": "abnormal",
        "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "normal"}],
    }
    by_id = {"id": "smartbench_0005-anomaly-detection"}
    put(**{"train.txt": "smartbench_0001\n0002\n", "test.json": json.dumps([conversation, by_id])})
    both = SmartHomeBench(train_list="train.txt", test_list="test.json").read(root)
    assert [(r.id[-1], r.label, r.split) for r in both] == [
        ("1", "normal", "train"),
        ("2", "abnormal", "train"),
        ("4", "normal", "test"),
        ("5", "abnormal", "test"),
    ]
    one = SmartHomeBench(test_list="test.json").read(root)
    assert [record.split for record in one] == [None, None, None, "test", "test"]


def test_missing_clips(root):
    (root / CLIPS[2]).unlink()
    with pytest.raises(DataError, match=r"1 of 5 listed videos are not on disk \(smartbench_0003\)"):
        SmartHomeBench().read(root)
    with pytest.warns(UserWarning, match=r"1 of 5 listed videos .* left out, by class: abnormal 1\."):
        assert len(SmartHomeBench(missing="drop").read(root)) == 4
    for clip in CLIPS:
        (root / clip).unlink(missing_ok=True)
    with pytest.raises(DataError, match="5 of 5"):
        SmartHomeBench(missing="drop").read(root)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"Videos/Video_Annotation.csv": HEADER + "smartbench_0001,Pet,Odd,d,r\n"}, {}, "row 2: the tag 'odd' is none"),
        ({"Videos/Video_Annotation.csv": HEADER + "clip1,Pet,Normal,d,r\n"}, {}, "row 2: 'clip1' is no clip"),
        ({"Videos/Video_Annotation.csv": TABLE + TABLE.split("\n")[1]}, {}, "row 7: smartbench_0001 is already listed"),
        ({"l.txt": "0001\n0009"}, {"test_list": "l.txt"}, "l.txt, row 2: the clip smartbench_0009 is not in"),
        ({"l.txt": "0001"}, {"train_list": "l.txt", "test_list": "l.txt"}, "is on the training list as well"),
        ({"l.json": "{}"}, {"test_list": "l.json"}, "expected a list of ids"),
        ({"l.json": '[{"name": 1}]'}, {"test_list": "l.json"}, "item 1: expected an id"),
        ({}, {"sources": "urls.csv"}, "urls.csv does not exist"),
        ({}, {"videos": "clips"}, "clips does not exist"),
    ],
)
def test_errors(put, root, files, options, message):
    put(**files)
    with pytest.raises(DataError, match=message):
        SmartHomeBench(**options).read(root)
