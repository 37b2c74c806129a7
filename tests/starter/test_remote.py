"""Clips on remote storage: nothing is copied unasked, each file is whole, and what is here is not copied again."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import fsspec
import pytest

from rbft.__main__ import main
from rbft.errors import ConfigError, DataError
from rbft.files import read_jsonl
from rbft.starter import remote
from rbft.starter.remote import COPIED, changed_here, copy_files, list_remote, still_to_copy

URL = "memory://bucket/clips"
FILES = {
    "fall/a.mp4": b"one",
    "fall/b.MTS": b"two!",
    "fall/seq/0001.png": b"p",
    "no_fall/c.webm": b"three",
    "labels.csv": b"path,label\n",
}
OTHERS = {"notes.docx": b"x", ".trash/d.mp4": b"y", "__MACOSX/._a.mp4": b"z"}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch):
    """A storage in memory in the place of one on the network, with some clips."""
    monkeypatch.setattr(remote, "SCHEMES", (*remote.SCHEMES, "memory"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, content in (FILES | OTHERS).items():
        memory.pipe_file(f"/bucket/clips/{name}", content)
    memory.pipe_file("/bucket/clips2/other.mp4", b"not of this folder")
    yield memory
    memory.store.clear()


def fetch(*args: object) -> int:
    return main(["fetch", URL, *map(str, args)])


def content(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != COPIED}


def test_nothing_is_copied_before_somebody_agreed(storage, tmp_path, capsys, monkeypatch):
    to = tmp_path / "clips"
    assert fetch("--to", to) == 2
    said = capsys.readouterr()
    assert "memory://bucket/clips: 5 files, 0.0 MB" in said.out
    assert "left out are 3 other files" in said.out and ".mp4 2" in said.out and ".docx 1" in said.out
    assert f"nothing was copied. Say --yes to copy 5 files, 0.0 MB to {to}" in " ".join(said.err.split())
    assert not to.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert fetch("--to", to) == 2 and not to.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert fetch("--to", to) == 0
    assert content(to) == FILES


def test_what_is_here_is_not_copied_again_and_what_changed_is(storage, tmp_path, capsys, monkeypatch):
    to, asked = tmp_path / "clips", []
    get = type(storage).get_file
    monkeypatch.setattr(
        type(storage),
        "get_file",
        lambda self, path, *rest, **more: (asked.append(path), get(self, path, *rest, **more)),
    )
    assert fetch("--to", to, "--yes") == 0 and len(asked) == 5
    assert fetch("--to", to, "--yes") == 0 and len(asked) == 5
    assert "all of it is here already" in capsys.readouterr().out
    storage.pipe_file("/bucket/clips/fall/a.mp4", b"new")
    (to / "no_fall/c.webm").unlink()
    assert fetch("--to", to, "--yes") == 0
    assert sorted(asked[5:]) == ["/bucket/clips/fall/a.mp4", "/bucket/clips/no_fall/c.webm"]
    assert content(to) == FILES | {"fall/a.mp4": b"new"}


def test_what_was_changed_here_is_kept(storage, tmp_path, capsys):
    to, labels = tmp_path / "clips", b"path,label\nfall/a.mp4,fall\n"
    assert fetch("--to", to, "--yes") == 0
    (to / "labels.csv").write_bytes(labels)
    assert fetch("--to", to, "--yes") == 0
    assert content(to) == FILES | {"labels.csv": labels}
    assert "1 files were changed here since they were copied, and stay: labels.csv" in capsys.readouterr().out
    storage.pipe_file("/bucket/clips/labels.csv", b"theirs")
    storage.pipe_file("/bucket/clips/fall/a.mp4", b"new")
    assert fetch("--to", to, "--yes") == 0
    assert content(to) == FILES | {"fall/a.mp4": b"new", "labels.csv": b"theirs", "labels.csv.old-1": labels}
    assert "labels.csv was changed here and there; yours is now" in capsys.readouterr().out
    os.utime(to / "labels.csv", (5, 5))
    storage.pipe_file("/bucket/clips/labels.csv", b"again")
    assert fetch("--to", to, "--yes") == 0
    assert content(to)["labels.csv.old-2"] == b"theirs", "other content may be as long"
    # a copy that an earlier version made is changed if its size is another
    manifest = (to / COPIED).read_text()
    (to / COPIED).write_text(re.sub(r', "modified": \d+', "", manifest))
    assert changed_here(to) == []


def test_a_copy_that_was_stopped_goes_on(storage, tmp_path, monkeypatch):
    to, get = tmp_path / "clips", type(storage).get_file

    def failing(self, path, local, **more):
        if path.endswith("b.MTS"):
            Path(local).write_bytes(b"t")
            raise ConnectionResetError("the line is gone")
        get(self, path, local, **more)

    killed = to / "fall/.b.MTS.x.tmp"
    killed.parent.mkdir(parents=True)
    mine = to / "fall/.mine.MTS.x.tmp"
    for file in (killed, mine):
        file.touch()
        os.utime(file, (0, 0))
    monkeypatch.setattr(type(storage), "get_file", failing)
    found = list_remote(URL)
    with pytest.raises(DataError, match=r"clips: fall/b\.MTS: cannot be read \(the line is gone\)"):
        copy_files(found, still_to_copy(found, to), to, lambda *_: None)
    assert content(to) == {"fall/a.mp4": b"one", "fall/.mine.MTS.x.tmp": b""}, "what was begun is not there"
    mine.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(remote, "SCHEMES", ("memory",))
    left = still_to_copy(found, to)
    assert len(left) == 4
    copy_files(found, left, to, lambda *_: None)
    assert content(to) == FILES
    assert len(list(read_jsonl(to / COPIED))) == 5


def test_a_file_that_comes_short_is_refused(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(type(storage), "get_file", lambda self, path, local, **_: Path(local).write_bytes(b"o"))
    found = list_remote(URL)
    with pytest.raises(DataError, match=r"fall/a\.mp4 came with 1 of 3 bytes"):
        copy_files(found, found.files[:1], tmp_path / "to", lambda *_: None)
    assert content(tmp_path / "to") == {}


def test_no_file_of_a_person_is_replaced(storage, tmp_path):
    mine = tmp_path / "fall/a.mp4"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    found = list_remote(URL)
    with pytest.raises(ConfigError, match=r"fall/a\.mp4 is there already and was not copied from memory://"):
        still_to_copy(found, tmp_path)
    assert mine.read_bytes() == b"mine"
    copy_files(found, found.files, tmp_path / "other", lambda *_: None)
    with pytest.raises(ConfigError, match="holds a copy of memory://bucket/clips; name another folder"):
        still_to_copy(list_remote("memory://bucket/clips2"), tmp_path / "other")


@pytest.mark.parametrize("name", ["../../evil.mp4", "a\\b.mp4", "a\nb.mp4"])
def test_a_name_of_the_storage_leads_nowhere(name, storage, tmp_path, monkeypatch):
    info = {f"/bucket/clips/{name}": {"size": 3, "name": name, "created": 1}}
    monkeypatch.setattr(type(storage), "find", lambda *_, **__: info)
    with pytest.raises(DataError, match=r"the path|no videos, images or tables are there"):
        list_remote(URL)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("file:///etc", ConfigError, "must begin with one of s3://"),
        ("https://host/clips", ConfigError, "must begin with one of s3://"),
        ("s3://bucket::memory://x", ConfigError, "name one storage"),
        ("s3://key:secret@bucket/clips", ConfigError, "leave keys and passwords out"),
        ("memory://bucket/nothing", DataError, "no videos|no such folder"),
    ],
)
def test_addresses_that_are_refused(url, kind, message, storage):
    with pytest.raises(kind, match=message) as caught:
        list_remote(url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(storage, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"pip install 'rbft\[remote\]'"):
        list_remote("s3://bucket/clips")


def test_fit_says_how_to_get_there(capsys):
    assert main(["fit", "s3://bucket/clips"]) == 2
    assert "rbft fetch s3://bucket/clips --to FOLDER" in " ".join(capsys.readouterr().err.split())


def test_a_slash_at_the_end_of_an_address_makes_no_other_of_it(storage, tmp_path, capsys):
    for first, second in (("", "/"), ("/", "")):
        to = tmp_path / f"clips{len(first)}"
        assert main(["fetch", URL + first, "--yes", "--to", str(to)]) == 0
        assert main(["fetch", URL + second, "--yes", "--to", str(to)]) == 0
        assert "all of it is here already" in capsys.readouterr().out
