"""Which clips a page shows, where their first labels come from, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbft.data.formats import Table
from rbft.data.own_tables import DOUBTED, NEXT
from rbft.errors import ConfigError, DataError
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.labelling.clips import Clip, find_clips, in_order, read_order
from rbft.predict.answers import Answer, write_answers
from rbft.starter.layout import recognise
from rbft.suggest.page import write_suggestions


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("video")
    return root


def labels(found) -> dict[str, str]:
    return {row.path: row.label for row in found.table.read()}


def test_loose_clips_have_no_label(tmp_path: Path) -> None:
    found = find_clips(fill(tmp_path, "b.mp4", "a.mp4", "notes.txt", ".hidden.mp4"))
    assert [clip.name for clip in found.clips] == ["a.mp4", "b.mp4"]
    assert (labels(found), found.table.path.name, found.said) == ({}, "labels.csv", "a folder without labels")


def test_a_folder_for_each_class_gives_the_first_labels(tmp_path: Path) -> None:
    fill(tmp_path, "fall/a.mp4", "sit/b.mp4", "sit/c.mp4", "Unlabelled/d.mp4")
    found = find_clips(tmp_path)
    assert labels(found) == {"fall/a.mp4": "fall", "sit/b.mp4": "sit", "sit/c.mp4": "sit"}
    assert "a folder for each class (fall 1, sit 2)" in found.said and len(found.clips) == 4
    assert labels(find_clips(tmp_path, folders_are_classes=False)) == {}
    fill(tmp_path, "e.mp4")
    assert labels(find_clips(tmp_path)) == {}, "with loose clips beside them, folders say nothing"


def test_folders_of_splits_keep_their_split(tmp_path: Path) -> None:
    found = find_clips(fill(tmp_path, "train/fall/a.mp4", "train/sit/b.mp4", "test/fall/c.mp4", "test/sit/d.mp4"))
    found.table.set("train/fall/a.mp4", None, "sit")
    assert found.table.path.read_text().splitlines()[:2] == ["path,label,split", "test/fall/c.mp4,fall,test"]


def test_a_table_names_parts_and_labels_and_files_beside_it_are_clips_too(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "labels.csv").write_text("path,label,start,end\na.mp4,fall,1,2\na.mp4,,3,4.5\ngone.mp4,sit,,\n")
    found = find_clips(tmp_path)
    assert [clip.name for clip in found.clips] == ["a.mp4#t=1,2", "a.mp4#t=3,4.5", "b.mp4"]
    assert found.missing == 1
    alone = find_clips(tmp_path / "labels.csv")
    assert [clip.name for clip in alone.clips] == ["a.mp4#t=1,2", "a.mp4#t=3,4.5"]


def test_another_table_beside_the_clips_is_found_or_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.mp4")
    (tmp_path / "answers.csv").write_text("question,answer\nx,y\n")
    (tmp_path / "clips.tsv").write_text("video\tclass\na.mp4\tfall\n")
    assert find_clips(tmp_path).table.path.name == "clips.tsv"
    (tmp_path / "more.csv").write_text("path,label\na.mp4,sit\n")
    with pytest.raises(DataError, match=r"several tables of clips \(clips.tsv, more.csv\); name .* --table"):
        find_clips(tmp_path)
    assert labels(find_clips(tmp_path, tmp_path / "more.csv")) == {"a.mp4": "sit"}
    with pytest.raises(ConfigError, match="put it into"):
        find_clips(tmp_path, tmp_path.parent / "elsewhere.csv")
    with pytest.raises(ConfigError, match="is a table already"):
        find_clips(tmp_path / "more.csv", tmp_path / "clips.tsv")


def test_nothing_to_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder or file"):
        find_clips(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no video \(found notes.txt"):
        find_clips(fill(tmp_path / "empty", "notes.txt"))
    (tmp_path / "t.csv").write_text("path,label\ngone.mp4,x\n")
    with pytest.raises(DataError, match="none of its 1 clips is on the disk"):
        find_clips(tmp_path / "t.csv")


def test_clips_that_are_wanted_come_first_then_those_without_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [Clip(f"{name}.mp4", None) for name in "abcde"]
    assert in_order(clips, {clips[0], clips[3]}, [clips[3], clips[1], clips[3]]) == [3, 1, 2, 4, 0]
    found = find_clips(fill(tmp_path / "clips", "a.mp4", "b.mp4", "c.mp4"))
    order = tmp_path / "label_next.csv"
    monkeypatch.chdir(tmp_path)
    order.write_text("path,start,end,predicted\nclips/c.mp4,,,x\na.mp4,,,x\nother.mp4,,,x\n")
    assert [clip.path for clip in read_order(order, found)] == ["c.mp4", "a.mp4"]
    order.write_text("Video,predicted\nc.mp4,x\n")
    assert [clip.path for clip in read_order(order, found)] == ["c.mp4"]
    order.write_text("path\nother.mp4\n")
    with pytest.raises(DataError, match="it names none of the 3 clips"):
        read_order(order, found)


def test_what_rbft_itself_left_beside_the_clips_is_no_table_of_labels(tmp_path: Path) -> None:
    fill(tmp_path, "fall/a.mp4", "fall/b.mp4", "sit/c.mp4", "sit/d.mp4")
    write_answers(tmp_path / "answers.csv", [Answer("fall/a.mp4", "sit", 0.5)])
    write_answers(tmp_path / "answers.jsonl", [Answer("fall/a.mp4", "sit", 0.5, rationale="a bed")])
    write_suggestions(tmp_path, "Suggestions", [], [], [], [], "diverse")
    for name, columns in (("label_next.csv", NEXT), ("look_again.csv", DOUBTED)):
        assert (tmp_path / name).read_text() == ",".join(columns) + "\n"
        (tmp_path / name).write_text(",".join(columns) + "\nfall/a.mp4" + ",1" * (len(columns) - 1) + "\n")
    prediction = Prediction("a", "fall/a.mp4", "fall", "fall", (0.5, 0.5), (-1.0, -1.0))
    write_predictions(tmp_path / "predictions.jsonl", [prediction])
    found = find_clips(tmp_path)
    assert found.table.path.name == "labels.csv"
    assert labels(found) == {"fall/a.mp4": "fall", "fall/b.mp4": "fall", "sit/c.mp4": "sit", "sit/d.mp4": "sit"}
    assert recognise(tmp_path).description == "a folder for each class"
    (tmp_path / "answers.csv").write_text("video,predicted,probability,label\nfall/a.mp4,sit,1,sit\n")
    assert labels(find_clips(tmp_path)) == {"fall/a.mp4": "sit"}, "to which a person has added labels"


def test_folders_of_classes_come_before_a_table_without_labels(tmp_path: Path) -> None:
    fill(tmp_path, "fall/a.mp4", "sit/b.mp4")
    (tmp_path / "cameras.csv").write_text("path,camera\nfall/a.mp4,1\n")
    assert labels(find_clips(tmp_path)) == {"fall/a.mp4": "fall", "sit/b.mp4": "sit"}
    assert find_clips(tmp_path, folders_are_classes=False).table.path.name == "cameras.csv"
    (tmp_path / "mine.csv").write_text("path,label\nfall/a.mp4,fall\n")
    assert find_clips(tmp_path, folders_are_classes=False).table.path.name == "mine.csv", "which has labels"


def test_folders_of_images_are_clips_where_their_rate_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "clips", "fall/a/1.jpg", "fall/a/2.jpg", "sit/b/1.jpg", "sit/c.mp4")
    assert [clip.name for clip in find_clips(root).clips] == ["sit/c.mp4"]
    found = find_clips(root, frame_rate=25)
    begun = {"fall/a#fps=25": "fall", "sit/b#fps=25": "sit", "sit/c.mp4": "sit"}
    assert labels(found) == begun and [clip.name for clip in found.clips] == [*begun]
    found.table.set("sit/b#fps=25", None, "fall")
    assert {record.path: record.label for record in Table().read(root)} == {**begun, "sit/b#fps=25": "fall"}
    assert [clip.name for clip in find_clips(root).clips] == [*begun], "the table says the rates from then on"

    named = root / "mine.csv"
    named.write_text("path,fps,label\nfall/a,10,\nsit/b,5,\nsit/c.mp4,,\n")
    found = find_clips(named)
    assert [clip.name for clip in found.clips] == ["fall/a#fps=10", "sit/b#fps=5", "sit/c.mp4"]
    found.table.set("sit/b#fps=5", None, "fall")
    assert named.read_text() == "path,fps,label\nfall/a,10,\nsit/b,5,fall\nsit/c.mp4,,\n"
    order = tmp_path / "label_next.csv"
    order.write_text("path\nsit/b#fps=5\nclips/fall/a#fps=25\n")
    monkeypatch.chdir(tmp_path)
    assert [clip.name for clip in read_order(order, found)] == ["sit/b#fps=5", "fall/a#fps=10"]
    assert len(find_clips(root, named, frame_rate=25).clips) == 3, "no folder is shown twice"

    named.write_text("path,label\nfall/a,\n")
    with pytest.raises(DataError, match=r"row 2: fall/a is a folder; .* label: --frame-rate"):
        find_clips(named)
    assert [clip.name for clip in find_clips(named, frame_rate=4).clips] == ["fall/a#fps=4"]
    with pytest.raises(DataError, match=r"holds images itself; .* Name the folder above it"):
        find_clips(root / "fall" / "a", frame_rate=4)
    fill(tmp_path / "flat", "a/1.jpg", "b/1.jpg")
    assert labels(find_clips(tmp_path / "flat", frame_rate=4)) == {}, "they are clips, and no classes"
    with pytest.raises(DataError, match="2 folders of numbered images"):
        find_clips(tmp_path / "flat")


def test_folders_that_are_neither_classes_nor_splits_do_not_hide_a_table(tmp_path: Path) -> None:
    fill(tmp_path, "train/fall/a.mp4", "others/b.mp4")
    (tmp_path / "cameras.csv").write_text("path,camera\nothers/b.mp4,1\n")
    assert find_clips(tmp_path).table.path.name == "cameras.csv"
