"""Paths, splits and uniqueness of records."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rbft.data.records import VideoRecord, check_unique, found_path, parse_split, relative_path
from rbft.errors import DataError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b.mp4", "a/b.mp4"),
        ("./a//b.mp4", "a/b.mp4"),
        ("..a/b..mp4", "..a/b..mp4"),
        ("-mmq0.mp4", "-mmq0.mp4"),
        ("űnï 日本/b c.mp4", "űnï 日本/b c.mp4"),
    ],
)
def test_relative_path_keeps_honest_names(text, path):
    assert relative_path(text, "x") == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "/etc/passwd",
        "~/a.mp4",
        "../a.mp4",
        "a/../../b.mp4",
        "a/..",
        "a\x00.mp4",
        "a\nb.mp4",
        "..\\a.mp4",
        "a\\b.mp4",
        "C:/a.mp4",
        "C:a.mp4",
        "file:a.mp4",
        "file:///a.mp4",
        "http://h/a.mp4",
        "concat:a.mp4|b.mp4",
        "\udcff.mp4",
    ],
)
def test_relative_path_refuses_ways_out(text):
    with pytest.raises(DataError, match=r"labels\.csv, row 3: the path"):
        relative_path(text, "labels.csv, row 3")


def test_parse_split():
    names = ["train", "Training", "VAL", "valid", "validation", "dev", "test", " test ", ""]
    assert [parse_split(name, "x") for name in names] == ["train"] * 2 + ["val"] * 4 + ["test"] * 2 + [None]
    with pytest.raises(DataError, match="row 9: the split 'holdout' is unknown; use one of train"):
        parse_split("holdout", "row 9")


def test_check_unique_names_both_records():
    a, b = VideoRecord("1", "a.mp4", "x"), VideoRecord("1", "b.mp4", "y")
    with pytest.raises(DataError, match=r"'1' stands for both a\.mp4 and b\.mp4"):
        check_unique([a, b])
    with pytest.raises(DataError, match=r"a\.mp4 is listed twice, as '1' \(x\) and '2' \(y\)"):
        check_unique([a, VideoRecord("2", "a.mp4", "y")])
    with pytest.raises(DataError, match="stands for both"):
        check_unique([a, a])
    check_unique([a, VideoRecord("2", "b.mp4", "y")])


def test_records_hash_and_pickle_with_their_text():
    record = VideoRecord("1", "a.mp4", "x", "train", "g", {"description": "d"})
    assert len({record, pickle.loads(pickle.dumps(record))}) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fall/a\\b.mp4", "holds a backslash"),
        ("fall/a\nb.mp4", "holds a control character"),
        ("fall/\udce4.mp4", "is not valid UTF-8"),
        ("a:b/c.mp4", "begins like a drive of Windows"),
        ("~x/c.mp4", "begins with '~'"),
        ("data:x/c.mp4", "is a URL"),
    ],
)
def test_a_file_that_no_table_could_list_is_to_be_renamed(name, reason):
    with pytest.raises(DataError, match=f"^/clips: the path .* {reason}, .*so that no table could list it. Rename the"):
        found_path(Path("/clips") / name, Path("/clips"))
    assert found_path(Path("/clips/a b/c.mp4"), Path("/clips")) == "a b/c.mp4"
