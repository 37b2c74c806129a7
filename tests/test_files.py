"""Files are whole or absent, and JSON Lines survive a kill in the middle of a line."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbft.errors import DataError
from rbft.files import append_jsonl, archive, expanded, read_json, read_jsonl, write_atomic, write_json, write_jsonl

ROWS = [{"id": "ü", "n": 1}, {"id": "b\n", "n": 2.5}, {"id": "c", "n": None}]


def test_what_is_written_is_read(tmp_path):
    write_atomic(tmp_path / "deep" / "a.bin", b"\x00\xff")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"\x00\xff"
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    assert "ü" in (tmp_path / "a.json").read_text(encoding="utf-8")
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == list(enumerate(ROWS, start=1))
    write_jsonl(tmp_path / "a.jsonl", [])
    assert list(read_jsonl(tmp_path / "a.jsonl")) == []


def test_a_tilde_is_the_home_folder_of_a_user_that_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [expanded(name) for name in ("~", "~/a b", Path("~/a"))] == [tmp_path, tmp_path / "a b", tmp_path / "a"]
    for name in ("~.mp4", "~no user of this name/a", "a/~", "/a", ""):
        assert expanded(name) == Path(name)


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new and longer")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_contents_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("replace"), replace(self, to))[1])
    write_atomic(tmp_path / "a", "x")
    assert done == ["fsync", "replace", "fsync"], "file, name, folder"


def test_files_are_as_readable_as_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
        assert os.umask(0o027) == 0o027, "the umask is left as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON .*Remove it or restore it"):
        read_json(tmp_path / "a.json")


@settings(deadline=None, max_examples=40)  # each example waits for the disk
@given(st.integers(0, 200), st.integers(1, 3))
def test_appending_after_a_kill_at_any_byte_keeps_every_whole_row(tmp_path_factory, cut, more):
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    append_jsonl(path, ROWS)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    # without its end alone, a row is whole
    whole = ROWS[: (data + b"\n" if data.endswith(b"}") else data).count(b"\n")]
    assert [row for _, row in read_jsonl(path)] == whole
    append_jsonl(path, ROWS[:more])
    assert [row for _, row in read_jsonl(path)] == whole + ROWS[:more]
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_appending_keeps_what_is_there_and_makes_folders(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    append_jsonl(path, ROWS[:1])
    append_jsonl(path, [])
    append_jsonl(path, ROWS[1:])
    assert [row for _, row in read_jsonl(path)] == ROWS
    path.write_text('{"a": 1}')  # as an editor leaves it
    append_jsonl(path, ROWS[:1])
    assert [row for _, row in read_jsonl(path)] == [{"a": 1}, ROWS[0]]


def test_wrong_rows_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n{"a": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: not valid JSON .*Fix or delete that line"):
        list(read_jsonl(path))
    path.write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: expected a JSON object, found list"):
        list(read_jsonl(path))
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_old_work_is_set_aside_and_never_deleted(tmp_path):
    folder = tmp_path / "test"
    assert archive(folder) is None
    for number in (1, 2):
        folder.mkdir()
        (folder / "x").write_text(str(number))
        assert archive(folder) == tmp_path / f"test.old-{number}"
    assert [(tmp_path / f"test.old-{n}" / "x").read_text() for n in (1, 2)] == ["1", "2"]
    assert not folder.exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_is_written_that_is_no_json(tmp_path, bad):
    path = tmp_path / "metrics.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"metrics\.json: test\.1\.accuracy is not a finite number, so nothing"):
        write_json(path, {"n": 1.0, "test": [{}, {"accuracy": bad}]})
    for write in (write_jsonl, append_jsonl):
        with pytest.raises(DataError, match=r"metrics\.json: scores\.0 is not a finite number"):
            write(path, [{"scores": [1.0]}, {"scores": (bad, 1.0)}])
    assert path.read_text() == "{}"
