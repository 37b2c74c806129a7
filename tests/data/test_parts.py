"""Parts of recordings as rows of a table: what is read, what stays together, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rbft.data.check import check_dataset
from rbft.data.fingerprint import records_fingerprint
from rbft.data.formats import Table, VideoFolder
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord, check_unique, overlap, part_name, split_part
from rbft.data.splits import make_splits
from rbft.data.video_facts import VideoFacts
from rbft.errors import DataError

TABLE = "path,label,start,end\na.mp4,x,0,2\na.mp4,y,2,4.5\nb.mp4,x,,\n"


@pytest.fixture
def root(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"video")
    return tmp_path


def read(root, content):
    (root / "labels.csv").write_text(content)
    return Table().read(root)


def part(start, end, label="x", split=None, path="a.mp4", group=None):
    return VideoRecord(part_name(path, (start, end)), path, label, split, group, part=(start, end))


@pytest.mark.parametrize("times", [(0.0, 2.0), (1.25, 1e5), (0.001, 0.1)])
def test_a_part_has_a_name_that_says_it(times):
    assert split_part(part_name("a b.mp4", times)) == ("a b.mp4", times)
    assert split_part("a.mp4") == ("a.mp4", None)
    assert part_name("a.mp4", (10.0, 20.5)) == "a.mp4#t=10,20.5"


def test_a_table_names_parts(root):
    first, second, whole = read(root, TABLE)
    assert (first.id, first.path, first.part, first.video) == ("a.mp4#t=0,2", "a.mp4", (0.0, 2.0), "a.mp4#t=0,2")
    assert (second.label, second.part) == ("y", (2.0, 4.5))
    assert (whole.id, whole.part, whole.video) == ("b.mp4", None, "b.mp4")
    check_unique([first, second, whole])
    (root / "labels.csv").unlink()
    (root / "metadata.csv").write_text(TABLE.replace("path,", "file_name,"))
    assert [record.part for record in VideoFolder().read(root)] == [(0.0, 2.0), (2.0, 4.5), None]


def test_a_column_alone_means_something_else(root):
    assert [r.part for r in read(root, "path,label,start\na.mp4,x,early\nb.mp4,y,late\n")] == [None, None]


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("start", "0.5", r"labels\.csv, row 1: there is a column 'start' and none 'end'"),
        ("start,duration", "1,2", "'start' and none 'end'.*add 'end', or rename 'start' if it means something else"),
        ("End", "00:07", "'End' and none 'start'"),
    ],
)
def test_one_time_without_the_other_is_refused(root, columns, cells, message):
    with pytest.raises(DataError, match=message):
        read(root, f"path,label,{columns}\na.mp4,x,{cells}\nb.mp4,y,{',' * columns.count(',')}\n")


@pytest.mark.parametrize(
    "columns",
    ["start_time,end_time", "start_frame,end_frame", "Time Start,Time End", "begin_sec,stop_sec", "onset,offset"],
)
def test_times_under_other_names_are_warned_of(root, columns):
    with pytest.warns(
        UserWarning, match=rf"whole videos are taken, whatever '{columns.split(',')[0]}' and '"
    ) as caught:
        assert read(root, f"path,label,{columns}\na.mp4,x,1,2\n")[0].part is None
    assert len(caught) == 1
    (first,) = read(root, f"path,label,start,end,{columns}\na.mp4,x,1,2,30,60\n")
    assert first.part == (1.0, 2.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,x,2,1", "row 2: 'start' and 'end' must be seconds"),
        ("a.mp4,x,1,", "found '1' and ''"),
        ("a.mp4,x,-1,2", "must be seconds"),
        ("a.mp4,x,00:10,00:20", "such as 10 and 12.5"),
        ("a.mp4,x,0,inf", "must be seconds"),
        ("a.mp4,x,0,nan", "must be seconds"),
        ("a.mp4,x,0,2\na.mp4,x,0.0,2.0", "a.mp4#t=0,2 is already listed"),
    ],
)
def test_what_is_no_part_is_refused_with_its_row(root, row, message):
    with pytest.raises(DataError, match=message):
        read(root, f"path,label,start,end\n{row}\n")


def test_a_whole_video_beside_a_part_of_it_is_listed_twice():
    with pytest.raises(DataError, match=r"a\.mp4.* is listed twice"):
        check_unique([part(0, 1), VideoRecord("a", "a.mp4", "x")])
    with pytest.raises(DataError, match="is listed twice"):
        check_unique([VideoRecord("a", "a.mp4", "x"), part(0, 1)])


def test_overlaps():
    assert overlap(part(0, 2), part(1, 3))
    assert not overlap(part(0, 2), part(2, 3)), "the end is after the last frame"
    assert not overlap(part(0, 2), part(0, 2, path="b.mp4"))


def test_parts_of_a_recording_stay_together_where_we_split():
    records = [part(i, i + 1, "xy"[i % 2], path=f"{number}.mp4") for number in range(8) for i in range(6)]
    splits = make_splits(records, LabelSet.from_records(records), shots=2, val_shots=1)
    sides = [{record.path for record in side} for side in (splits.train, splits.val, splits.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set().union(*sides))


def cut(records):
    return make_splits(records, LabelSet.from_records(records), shots=None, val_shots=0)


def test_the_same_seconds_on_two_sides_are_a_leak():
    rest = [VideoRecord(f"{s}{c}", f"{s}{c}.mp4", c, s) for s in ("train", "test") for c in "xy"]
    with pytest.raises(DataError, match=r"a\.mp4#t=0,2 \(train\) and a\.mp4#t=1,3 \(test\) show the same seconds"):
        cut([*rest, part(0, 2, split="train"), part(1, 3, split="test")])
    assert cut([*rest, part(0, 2, split="train"), part(2, 3, split="test")]).test
    mixed = [part(0, 2, group="g"), part(1, 3, group="h"), part(0, 2, "y", path="b.mp4"), part(5, 6, "y", path="c.mp4")]
    with pytest.raises(DataError, match="show the same seconds"):
        cut(mixed)


def test_the_check_names_recordings_on_two_sides_and_parts_behind_the_end(root):
    sides = [part(0, 2, split="train"), part(0, 2, "y", "train", "b.mp4")]
    sides += [part(2, 4, split="test"), part(9, 12, "y", "test", "b.mp4")]
    labels = LabelSet.from_records(sides)
    facts = {p: VideoFacts(p, decoded_frames=50, fps=10.0, duration=5.0, digest=p) for p in ("a.mp4", "b.mp4")}
    report = check_dataset(root, sides, cut(sides), labels, facts)
    kinds = {finding.kind: finding.message for finding in report.findings}
    assert "b.mp4#t=9,12: the video ends at 5.00 s" in kinds["outside"]
    assert "parts of the recording" in kinds["near_duplicate"]
    assert {"listed_twice", "duplicate_across_splits"}.isdisjoint(kinds)


def test_frames_of_a_part_are_counted():
    facts = VideoFacts("a.mp4", decoded_frames=50, fps=10.0, duration=5.0)
    assert facts.timeline_of((1.0, 2.0)).num_frames == 10
    assert facts.timeline_of((4.5, 9.0)).num_frames == 5
    assert facts.timeline_of(None).num_frames == 50


def test_the_fingerprint_knows_the_part(root):
    whole, other = part(0, 1), part(0, 2)
    prints = [records_fingerprint(root, [replace(record, id="a")]) for record in (whole, other)]
    assert prints[0] != prints[1]
