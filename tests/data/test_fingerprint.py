"""The fingerprint follows what a data set is, not where or when it was copied."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from rbft.data.fingerprint import records_fingerprint
from rbft.data.records import VideoRecord
from rbft.errors import DataError
from rbft.files import file_digest


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode() * 1000)
    return tmp_path


RECORDS = [VideoRecord("a", "a.mp4", "x"), VideoRecord("b", "b.mp4", "y", "test", "g")]


def test_known_digest(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert file_digest(tmp_path / "empty") == "cae66941d9efbd404e4d88758ea67670"  # BLAKE2b-128 of nothing


def test_order_times_and_places_do_not_matter(root):
    before = records_fingerprint(root, RECORDS)
    os.utime(root / "a.mp4", (1, 1))
    (root / "moved").mkdir()
    shutil.move(root / "b.mp4", root / "moved" / "b.mp4")
    moved = [RECORDS[0], replace(RECORDS[1], path="moved/b.mp4")]
    assert records_fingerprint(root, reversed(moved)) == before


@pytest.mark.parametrize("change", [{"id": "c"}, {"label": "z"}, {"split": None}, {"split": "val"}, {"group": None}])
def test_every_field_matters(root, change):
    changed = [RECORDS[0], replace(RECORDS[1], **change)]
    assert records_fingerprint(root, changed) != records_fingerprint(root, RECORDS)


def test_content_matters(root):
    before = records_fingerprint(root, RECORDS)
    times = (root / "a.mp4").stat()
    (root / "a.mp4").write_bytes(b"a" * 999 + b"b")
    os.utime(root / "a.mp4", (times.st_atime, times.st_mtime))
    assert records_fingerprint(root, RECORDS) != before


def test_missing_file_is_named(root):
    (root / "a.mp4").unlink()
    with pytest.raises(DataError, match=r"a\.mp4 is missing"):
        records_fingerprint(root, RECORDS)
