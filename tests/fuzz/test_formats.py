"""Spoilt tables, lists and conversations give a clear error or records that are safe to use."""

from __future__ import annotations

import json
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.mutate import depth, explore, spoilt

from rbft.data.fingerprint import records_fingerprint
from rbft.data.formats import (
    HMDB51,
    UCF101,
    Conversations,
    DatasetFormat,
    Diving48,
    Kinetics,
    MMAction,
    MultiHateClip,
    SmartHomeBench,
    SSv2,
    Table,
    VideoFolder,
)
from rbft.data.labels import LabelSet
from rbft.data.splits import Splits, make_splits
from rbft.errors import RBFTError
from rbft.files import write_json
from rbft.starter.layout import recognise
from rbft.video.container import resolve_inside


@dataclass(frozen=True)
class Case:
    """A small valid data set.

    Args:
        layout: Makes its format.
        spoil: The annotation file to spoil.
        files: All annotation files.
        videos: Empty files that stand for videos.
    """

    layout: Callable[[], DatasetFormat]
    spoil: str
    files: dict[str, str]
    videos: tuple[str, ...]


CLIPS = tuple(f"{label}/{number}.mp4" for label in ("fall", "no fall") for number in range(4))
ROWS = [(clip, clip.split("/")[0], ("train", "val", "test", "")[i % 4], f"camera {i}") for i, clip in enumerate(CLIPS)]
CELLS = [dict(zip(("path", "label", "split", "group"), row, strict=True)) for row in ROWS]
HEADER = "path{0}label{0}split{0}group\n"


def _delimited(mark: str) -> str:
    return HEADER.format(mark) + "".join(f"{mark.join((row[0], _quoted(row[1]), *row[2:]))}\n" for row in ROWS)


def _quoted(cell: str) -> str:
    return f'"{cell}"'


def _turns(label: str, style: str) -> dict[str, object]:
    answer = f"He lies there.\nClassification: {label}"
    if style == "messages":
        return {"messages": [{"role": "user", "content": "<video>which?"}, {"role": "assistant", "content": answer}]}
    return {"conversations": [{"from": "human", "value": "which?"}, {"from": "gpt", "value": answer}]}


CHATS = [
    _turns(row[1], ("messages", "conversations")[i % 2]) | ({"videos": [row[0]]} if i % 2 else {"video": row[0]})
    for i, row in enumerate(ROWS)
]
UCF = [f"{name}/v_{name}_g{group:02d}_c01.avi" for name in ("ApplyEyeMakeup", "YoYo") for group in range(1, 7)]
HMDB = [f"brush_hair/A_brush_hair_u_nm_np1_ba_goo_{i}.avi" for i in range(3)]
KINETICS = ("run", "sit", "run", "sit")
VOTES = "Video_ID\tMajority_Voting\tLabel\na1\tNormal\t[]\nb2\tHateful\t[]\n"
SSV2 = [{"id": str(i), "label": "x", "template": ("Holding [something]", "Moving")[i % 2]} for i in range(4)]

CASES = {
    "table csv": Case(lambda: Table(text_columns=("group",)), "labels.csv", {"labels.csv": _delimited(",")}, CLIPS),
    "table tsv": Case(lambda: Table("labels.tsv"), "labels.tsv", {"labels.tsv": _delimited("\t")}, CLIPS),
    "table jsonl": Case(
        lambda: Table("labels.jsonl"),
        "labels.jsonl",
        {"labels.jsonl": "".join(json.dumps(cells) + "\n" for cells in CELLS)},
        CLIPS,
    ),
    "video folder": Case(
        VideoFolder, "metadata.csv", {"metadata.csv": _delimited(",").replace("path", "file_name")}, CLIPS
    ),
    "conversations json": Case(
        lambda: Conversations(conclusion="Classification:"), "train.json", {"train.json": json.dumps(CHATS)}, CLIPS
    ),
    "conversations jsonl": Case(
        lambda: Conversations("train.jsonl", conclusion="Classification:", lowercase=True),
        "train.jsonl",
        {"train.jsonl": "".join(json.dumps(chat) + "\n" for chat in CHATS)},
        CLIPS,
    ),
    "mmaction": Case(
        MMAction,
        "train.txt",
        {"train.txt": "".join(f"{row[0]} {int(row[1] != 'fall')}\n" for row in ROWS), "classes.txt": "fall\nno fall\n"},
        CLIPS,
    ),
    "ucf101": Case(
        UCF101,
        "ucfTrainTestlist/trainlist01.txt",
        {
            "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 YoYo\r\n",
            "ucfTrainTestlist/trainlist01.txt": "".join(f"{p} {1 + ('YoYo' in p)}\r\n" for p in UCF if "g01" not in p),
            "ucfTrainTestlist/testlist01.txt": "".join(f"{p}\r\n" for p in UCF if "g01" in p),
        },
        tuple(UCF),
    ),
    "hmdb51": Case(
        HMDB51,
        "testTrainMulti_7030_splits/brush_hair_test_split1.txt",
        {
            "testTrainMulti_7030_splits/brush_hair_test_split1.txt": "".join(
                f"{path.split('/')[1]} {1 + (i == 2)} \n" for i, path in enumerate(HMDB)
            ),
            "testTrainMulti_7030_splits/climb_test_split1.txt": "B_climb_u_nm_np1_ba_goo_0.avi 1 \n",
        },
        (*HMDB, "climb/B_climb_u_nm_np1_ba_goo_0.avi"),
    ),
    "kinetics": Case(
        lambda: Kinetics(test=None, missing="drop"),
        "train.csv",
        {
            "train.csv": "label,youtube_id,time_start,time_end,split\n"
            + "".join(f"{label},id{i}aaaaaaaa,{i},{i + 10},train\n" for i, label in enumerate(KINETICS))
        },
        tuple(f"{label}/id{i}aaaaaaaa_{i:06d}_{i + 10:06d}.mp4" for i, label in enumerate(KINETICS)),
    ),
    "ssv2": Case(
        SSv2,
        "something-something-v2-train.json",
        {
            "something-something-v2-labels.json": json.dumps({"Holding something": "0", "Moving": "1"}),
            "something-something-v2-train.json": json.dumps(SSV2[:2]),
            "something-something-v2-validation.json": json.dumps(SSV2[2:]),
        },
        tuple(f"20bn-something-something-v2/{i}.webm" for i in range(4)),
    ),
    "diving48": Case(
        Diving48,
        "Diving48_vocab.json",
        {
            "Diving48_vocab.json": json.dumps([["Back", "15som", "05Twis", "FREE"], ["In", "Dive", "NoTwis", "PIKE"]]),
            "Diving48_V2_train.json": json.dumps([{"vid_name": "a", "label": 0}, {"vid_name": "b", "label": 1}]),
            "Diving48_V2_test.json": json.dumps([{"vid_name": "c", "label": 0}, {"vid_name": "d", "label": 1}]),
        },
        tuple(f"rgb/{name}.mp4" for name in "abcd"),
    ),
    "multihateclip": Case(
        lambda: MultiHateClip(videos="videos", missing="drop"),
        "English_data/annotation/train.tsv",
        {f"English_data/annotation/{name}.tsv": VOTES for name in ("train",)}
        | {
            "English_data/annotation/valid.tsv": VOTES.replace("a1", "c3").replace("b2", "d4"),
            "English_data/annotation/test.tsv": VOTES.replace("a1", "e5").replace("b2", "f6"),
        },
        tuple(f"videos/{name}.mp4" for name in ("a1", "b2", "c3", "d4", "e5", "f6")),
    ),
    "smarthome": Case(
        lambda: SmartHomeBench(missing="drop"),
        "Videos/Video_Annotation.csv",
        {
            "Videos/Video_Annotation.csv": "Title,Category,Anomaly Tag,Video Description,Reasoning\n"
            + "".join(
                f'smartbench_{i:04d},"Pets, wild",{("Normal", "Abnormal")[i % 2]},A cat.,So.\n' for i in range(1, 5)
            ),
            "Videos/Video_url.csv": "Video Name,Title,URL\nsmartbench_0001,r,https://www.youtube.com/watch?v=aaaaaaaaaaa\n",
        },
        tuple(f"Videos/Trim_Videos/raw_video/smartbench_{i:04d}.mp4" for i in range(1, 5)),
    ),
}
SECOND = {
    "ucf101": ("ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/testlist01.txt"),
    "mmaction": ("classes.txt",),
    "ssv2": ("something-something-v2-labels.json",),
    "diving48": ("Diving48_V2_train.json",),
    "smarthome": ("Videos/Video_url.csv",),
}
TARGETS = [(name, file) for name, case in CASES.items() for file in (case.spoil, *SECOND.get(name, ()))]


def lay_out(root: Path, case: Case) -> None:
    for path, content in {**dict.fromkeys(case.videos, ""), **case.files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode())


def use(layout: DatasetFormat, root: Path) -> None:
    """What a run does with a data set before it decodes anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = layout.read(root)
    for record in records:
        for text in (record.id, record.path, record.label, record.group or "", *record.text.values()):
            assert isinstance(text, str)
        assert record.split in (None, "train", "val", "test")
        assert not [char for char in record.path if unicodedata.category(char) in ("Cc", "Cs")]
        assert resolve_inside(root, record.path).is_relative_to(root)
    labels = LabelSet.from_records(records, layout.label_names(root))
    for shots in (None, 1):
        splits = make_splits(records, labels, shots=shots)
        sides = [{record.id for record in side} for side in (splits.train, splits.val, splits.test, splits.unused)]
        assert sum(map(len, sides)) == len(set().union(*sides)) == len(records), "every video on one side"
        write_json(root / "splits.json", splits.to_json())
        assert Splits.from_json(json.loads((root / "splits.json").read_text()), records).train == splits.train
    records_fingerprint(root, records)


@pytest.mark.parametrize("name", CASES)
def test_unspoilt_ones_are_read(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, CASES[name])
    assert len(CASES[name].layout().read(tmp_path)) >= 2


@depth(30, 1000)
@pytest.mark.parametrize(("name", "file"), TARGETS, ids=[f"{name}: {Path(file).name}" for name, file in TARGETS])
def test_spoilt_ones(name: str, file: str, examples: int) -> None:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        lay_out(root, case)

        def check(content: bytes) -> None:
            (root / file).write_bytes(content)
            try:
                use(case.layout(), root)
            except RBFTError as error:
                assert str(error).strip()

        explore(spoilt(case.files[file].encode()), examples, check)


LISTS = {
    "labels.csv": "path;label\na/1.mp4;x\nb/1.mp4;y\n",
    "list.tsv": "x\ta/1.mp4\nx\tb/1.mp4\n",
    "list.json": json.dumps([{"video": f"{label}/1.mp4", "response": "x"} for label in "ab"]),
    "list.txt": "a/1.mp4 0\nb/1.mp4 0\n",
}


@depth(30, 1000)
@pytest.mark.parametrize("name", LISTS)
def test_spoilt_lists_beside_clips(name: str, examples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for path in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).touch()

        def check(content: bytes) -> None:
            (root / name).write_bytes(content)
            try:
                assert recognise(root).classes
            except RBFTError as error:
                assert str(error).strip()

        explore(spoilt(LISTS[name].encode()), examples, check)
