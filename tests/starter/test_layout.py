"""What is recognised in a folder, a table or a list of clips, and what is said where it is not enough."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rbft.data.labels import UNLABELLED, odd_names
from rbft.errors import DataError
from rbft.labelling.clips import find_clips
from rbft.starter.layout import recognise


def fill(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CLIPS = [f"{label}/{number}.mp4" for label in ("fall", "other") for number in range(3)]


def test_a_folder_for_each_class(tmp_path: Path):
    layout = recognise(fill(tmp_path, *CLIPS))
    assert (layout.format, layout.settings, layout.root) == ("ClassFolders", {}, tmp_path)
    assert layout.classes == {"fall": 3, "other": 3}
    assert layout.description == "a folder for each class"


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    ("name", "header", "settings"),
    [
        ("labels.csv", "path,label", {}),
        ("Mine.CSV", "Video,Class,group", {"file": "Mine.CSV", "path_column": "Video", "label_column": "Class"}),
        ("clips.tsv", "file\tcategory", {"file": "clips.tsv", "path_column": "file", "label_column": "category"}),
    ],
)
def test_tables_whatever_their_columns_are_called(
    name: str, header: str, settings: dict, as_file: bool, tmp_path: Path
):
    fill(tmp_path, *CLIPS)
    mark = "\t" if name.endswith("tsv") else ","
    columns = header.split(mark)
    rows = [mark.join([clip, clip.split("/")[0], "camera"][: len(columns)]) for clip in CLIPS]
    (tmp_path / name).write_text("\n".join([header, *rows]))
    layout = recognise(tmp_path / name if as_file else tmp_path)
    assert (layout.format, dict(layout.settings)) == ("Table", settings)
    assert layout.classes == {"fall": 3, "other": 3}


def test_metadata_and_lists(tmp_path: Path):
    fill(tmp_path / "hub", *CLIPS)
    (tmp_path / "hub" / "metadata.csv").write_text(
        "file_name,label\n" + "\n".join(f"{clip},{clip.split('/')[0]}" for clip in CLIPS)
    )
    assert recognise(tmp_path / "hub").format == "VideoFolder"
    fill(tmp_path / "list", *CLIPS)
    (tmp_path / "list" / "classes.txt").write_text("fall\nother\n")
    (tmp_path / "list" / "all.txt").write_text("\n".join(f"{clip} {int('other' in clip)}" for clip in CLIPS))
    layout = recognise(tmp_path / "list" / "all.txt")
    assert (layout.format, layout.settings) == ("MMAction", {"train": "all.txt"})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"holds no videos \(found nothing\)"),
        (("notes.txt",), r"holds no videos \(found notes\.txt\)"),
        (
            ("a.mp4", "b.mp4"),
            r"holds 2 videos and nothing that says their classes\. .*labels\.csv with the columns path,label",
        ),
        (("fall/1.mp4", "fall/2.mp4"), r"2 clips of one class \('fall'\)"),
        (("a/fall/1.mp4", "a/other/2.mp4"), r"'a'.* If its folders are the classes \(fall, other\), name /.*/a\.$"),
        (("fall/1.mp4", "fall/2.mp4", "other/1.mp4"), r"too few clips of 'other' 1; each class needs at least 2"),
    ],
)
def test_what_is_not_enough_is_said_with_what_is_missing(names: tuple[str, ...], message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        recognise(fill(tmp_path, *names))


def test_a_table_of_unknown_columns_lists_them(tmp_path: Path):
    (tmp_path / "x.csv").write_text("where,what\na.mp4,fall\n")
    with pytest.raises(DataError, match=r"columns: 'where', 'what'"):
        recognise(tmp_path / "x.csv")
    with pytest.raises(DataError, match="no such folder or file"):
        recognise(tmp_path / "nothing")


def test_groups_are_suggested_by_file_names_that_classes_share(tmp_path: Path):
    names = [f"{label}/p{person}_{number}.mp4" for label in ("a", "b") for person in (1, 2) for number in range(2)]
    assert recognise(fill(tmp_path / "people", *names)).suggested_groups == {"p1": 4, "p2": 4}
    assert recognise(fill(tmp_path / "numbers", *CLIPS)).suggested_groups == {}
    apart = [f"{label}/{label}1_{number}.mp4" for label in ("a", "b") for number in range(3)]
    assert recognise(fill(tmp_path / "classes", *apart)).suggested_groups == {}, "the word is the class"


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path):
    fill(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4")
    table = tmp_path / "labels.csv"
    table.write_text("path,label,group\na.mp4,x,1\nb.mp4,x,2\nc.mp4, ,3\nd.mp4,y,4\ne.mp4,y,5\n")
    layout = recognise(tmp_path)
    assert (layout.classes, dict(layout.settings)) == ({"x": 2, "y": 2}, {"skip_unlabelled": True})
    assert layout.description == "the table labels.csv (1 rows without a label are left out; `rbft label` shows them)"
    table.write_text("path,label\na.mp4,\nb.mp4,\n")
    with pytest.raises(DataError, match="no row has a label yet; `rbft label` shows the clips"):
        recognise(tmp_path)


def test_lines_without_a_label_are_left_out_wherever_they_stand(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    lines = [json.dumps({"path": clip, "label": "ab"[place % 2]}) for place, clip in enumerate(CLIPS[1:])]
    (tmp_path / "clips.jsonl").write_text("\n".join([json.dumps({"path": CLIPS[0], "camera": 1}), *lines]))
    layout = recognise(tmp_path)
    assert (layout.format, layout.classes) == ("Table", {"a": 3, "b": 2})
    assert layout.settings == {"file": "clips.jsonl", "skip_unlabelled": True}


def test_of_two_columns_that_differ_in_case_the_usual_name_is_read(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    rows = [f"{clip},{'ab'[place % 2]},other{place % 2}" for place, clip in enumerate(CLIPS)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,Label", *rows]))
    assert recognise(tmp_path).classes == {"a": 3, "b": 3}


def test_metadata_in_the_folders_of_splits(tmp_path: Path):
    for side in ("train", "test"):
        fill(tmp_path / side, *(f"batch{number % 2}/{number}.mp4" for number in range(4)))
        rows = [f"batch{number % 2}/{number}.mp4,{'ab'[number // 2]}" for number in range(4)]
        (tmp_path / side / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    layout = recognise(tmp_path)
    assert (layout.format, layout.settings, layout.classes) == ("VideoFolder", {}, {"a": 4, "b": 4})
    assert layout.description == "a folder of videos with test/metadata.csv, train/metadata.csv"
    (tmp_path / "test" / "metadata.csv").unlink()
    layout = recognise(tmp_path)
    assert layout.classes == {"a": 2, "b": 2} and layout.notes == ("left out: test, without a metadata file",)
    (tmp_path / "train" / "metadata.csv").unlink()
    assert recognise(tmp_path).format == "ClassFolders"


@pytest.mark.parametrize(
    ("header", "settings"),
    [
        ("path,label", {"path_column": "path"}),
        ("video,class", {"path_column": "video", "label_column": "class"}),
        ("file_name,label", {}),
    ],
)
def test_metadata_by_any_usual_column_with_labels_or_without(header: str, settings: dict, tmp_path: Path):
    fill(tmp_path, *CLIPS, "more.mp4")
    rows = [f"{clip},{clip.split('/')[0]}" for clip in CLIPS]
    (tmp_path / "metadata.csv").write_text("\n".join([header, *rows, "more.mp4,"]))
    layout = recognise(tmp_path)
    assert (layout.format, layout.settings) == ("VideoFolder", settings | {"skip_unlabelled": True})
    assert layout.classes == {"fall": 3, "other": 3} and "1 rows without a label are left out" in layout.description


def test_the_advice_about_a_table_that_is_named_tells_its_separator(tmp_path: Path):
    (tmp_path / "x.csv").write_text("path;label\na.mp4;fall\n")
    with pytest.raises(DataError, match=r"'path;label'\)\. The cells seem to be separated by another character"):
        recognise(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("where,what\na.mp4,fall\n")
    with pytest.raises(DataError, match=r"Call them path and label, or say --data\.format\.path_column COLUMN"):
        recognise(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ('"fall\nhard"', r"the label 'fall\\nhard' holds a line break.* It is that of fall/0\.mp4; give it another"),
        ("w" * 101, "has 101 characters, 100 are the most"),
        ("<|im_end|>", "could take for a control token"),
    ],
)
def test_a_label_that_no_class_can_have_is_refused_where_it_stands(label: str, message: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    rows = [f"{clip},{label if place % 2 == 0 else 'x'}" for place, clip in enumerate(CLIPS)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match=message):
        recognise(tmp_path)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "new", "todo"])
def test_clips_in_a_folder_for_those_without_a_class_are_left_out(name: str, tmp_path: Path):
    root = fill(tmp_path / "classes", *CLIPS, f"{name}/a.mp4", f"{name}/b.mp4")
    layout = recognise(root)
    assert (layout.classes, layout.settings) == ({"fall": 3, "other": 3}, {"skip": [name]})
    assert layout.notes[0].startswith(f"left out as without a class: {name} (2 clips); --data.format ClassFolders")
    assert recognise(root, format="ClassFolders").classes == {"fall": 3, "other": 3, name: 2}
    fill(root, "annotations/a.csv")
    assert recognise(root, {"skip": ["annotations"]}).settings == {"skip": ["annotations", name]}

    fill(tmp_path / "splits", *(f"{side}/{clip}" for side in ("train", "test") for clip in CLIPS), f"{name}/a.mp4")
    assert recognise(tmp_path / "splits").settings == {"skip": [name]}
    with pytest.raises(DataError, match=rf"one class \('fall'\).*left out as without a class: {name} \(1 clips\)"):
        recognise(fill(tmp_path / "one", "fall/1.mp4", "fall/2.mp4", f"{name}/a.mp4"))
    with pytest.raises(DataError, match=r"holds 1 videos and nothing that says their classes"):
        recognise(fill(tmp_path / "none", f"{name}/a.mp4"))


def test_what_is_said_of_a_folder_without_videos_helps(tmp_path: Path):
    root = fill(tmp_path / "clips", *CLIPS, "annotations/boxes.xml")
    with pytest.raises(DataError, match=r"--data\.format\.skip '\[\"annotations\"\]'"):
        recognise(root)
    layout = recognise(root, {"skip": ["annotations"]})
    assert (layout.classes, layout.settings, layout.notes) == ({"fall": 3, "other": 3}, {"skip": ["annotations"]}, ())


def test_the_page_for_labels_leaves_out_the_same_folders(tmp_path: Path):
    fill(tmp_path, *CLIPS, *(f"{name}/a.mp4" for name in UNLABELLED))
    labelled = {clip.label for clip in find_clips(tmp_path).table.read()}
    assert labelled == recognise(tmp_path).classes.keys() == {"fall", "other"}
    assert odd_names(sorted(UNLABELLED)) and len(odd_names(sorted(UNLABELLED))) == 4


@pytest.mark.parametrize(
    ("about", "note"), [("key,value\nlicence,CC\n", ()), ("file_name,camera\n{}", ("not read: metadata.csv",))]
)
def test_metadata_of_splits_are_read_whatever_the_root_has_of_its_own(about: str, note: tuple, tmp_path: Path):
    clips = [f"{side}/{clip}" for side in ("train", "test") for clip in CLIPS]
    fill(tmp_path, *clips)
    rows = "".join(f"{clip},{clip.split('/')[0]}\n" for clip in CLIPS)
    for side in ("train", "test"):
        (tmp_path / side / "metadata.csv").write_text("file_name,label\n" + rows)
    (tmp_path / "metadata.csv").write_text(about.format("".join(f"{c},{'ab'[n % 2]}\n" for n, c in enumerate(clips))))
    layout = recognise(tmp_path)
    assert (layout.format, len(layout.records), layout.notes) == ("VideoFolder", 12, note)
    assert {record.split for record in layout.records} == {"train", "test"}


def test_a_table_in_a_folder_without_videos_is_not_to_be_left_out_unseen(tmp_path: Path):
    fill(tmp_path, *CLIPS, "runs/rbft.json")
    (tmp_path / "notes").mkdir()
    table = "path,label\n" + "".join(f"{clip},{'ab'[number % 2]}\n" for number, clip in enumerate(CLIPS))
    for place in ("notes/classes.csv", "runs/mine.csv"):
        (tmp_path / place).write_text(table)
    told = r"classes.csv lists classes of clips\. .*--data.format.file notes/classes.csv; .*skip '\[\"notes\"\]'$"
    with pytest.raises(DataError, match=told):
        recognise(tmp_path)
    assert recognise(tmp_path, {"file": "notes/classes.csv"}).classes == {"a": 3, "b": 3}
    assert recognise(tmp_path, {"skip": ["notes"]}).classes == {"fall": 3, "other": 3}
    (tmp_path / "notes/classes.csv").write_text("frame,count\n1,2\n")
    with pytest.raises(DataError, match=r"class folder .*notes holds no video"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("subset", ["training", "Validation"], "'subset' seems to state splits .*--data.format.split_column subset "),
        ("my use", ["train", ""], None),
        ("my use", ["train", "other"], None),
        ("Patient_ID", [0, 1], "'Patient_ID' may say which .*--data.format.group_column Patient_ID keeps"),
        ("scene group", ["a", "b"], "--data.format.group_column 'scene group' keeps"),
        ("scene", ["a", "a"], None),
        ("scene", list(range(6)), None),
        ("colour", ["a", "b"], None),
        ("name", ["a", "b"], None),
    ],
)
@pytest.mark.parametrize("name", ["labels.jsonl", "metadata.jsonl"])
def test_splits_and_groups_in_columns_of_other_names_are_told(
    name: str, column: str, cells: list, told: str | None, tmp_path: Path
):
    fill(tmp_path, *CLIPS)
    rows = [{"path": c, "label": c.split("/")[0], column: cells[n % len(cells)]} for n, c in enumerate(CLIPS)]
    (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    notes = recognise(tmp_path).notes
    assert len(notes) == bool(told) and (told is None or re.search(told, notes[0]))
    setting = "split_column" if column == "subset" else "group_column"
    if told:
        assert not recognise(tmp_path, {setting: column}).notes
        (tmp_path / name).write_text("".join(f"{json.dumps(row | {'split': '', 'group': 'g'})}\n" for row in rows))
        assert not recognise(tmp_path).notes


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("ucfTrainTestlist/classInd.txt", "UCF101"),
        ("testTrainMulti_7030_splits/fall_test_split1.txt", "HMDB51"),
        ("something-something-v2-labels.json", "SSv2"),
    ],
)
def test_lists_of_published_data_sets_are_not_to_be_left_out_unseen(name: str, format: str, tmp_path: Path):
    fill(tmp_path, *CLIPS, name)
    flag = f"--data.format.skip {name.split('/')[0]}" if "/" in name else "ClassFolders"
    with pytest.raises(DataError, match=rf"say --data\.format {format}; to go by .*{flag}$"):
        recognise(tmp_path)
    layout = recognise(tmp_path, {"skip": [name.split("/")[0]]} if "/" in name else None, "ClassFolders")
    assert layout.classes == {"fall": 3, "other": 3}
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{c},{'ab'[n % 2]}\n" for n, c in enumerate(CLIPS)))
    assert recognise(tmp_path).format == "Table"


def test_names_of_classes_beside_their_numbers_are_told(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    rows = [f"{clip},{int(clip[0] == 'f')},{clip.split('/')[0]},{'ab'[n % 2]},x" for n, clip in enumerate(CLIPS)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,my name,take,place", *rows]))
    told = ("the classes are the numbers of 'label'; the column 'my name' seems to name them",)
    notes = recognise(tmp_path).notes
    assert len(notes) == 1 and notes[0] == f"{told[0]}: --data.format.label_column 'my name' takes it"
    layout = recognise(tmp_path, {"label_column": "my name"})
    assert layout.classes == {"fall": 3, "other": 3} and not layout.notes
