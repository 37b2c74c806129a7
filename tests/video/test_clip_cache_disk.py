"""A clip cache on a disk that is full, read-only or not there, and within its limit."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.support.clip_caches import FOUR, make, same
from tests.support.watch import entries, no_warning

from rbft.video.clip import read_clip
from rbft.video.clip_cache import default_folder


def test_the_limit_holds_and_is_said_once(videos, tmp_path, opens):
    make(tmp_path / "probe").read("0.mp4", FOUR, root=videos)
    size = entries(tmp_path / "probe")[0].stat().st_size
    folder = tmp_path / "cache"
    caches = [make(folder, 2 * size + 100) for _ in range(2)]  # as two processes have them
    with no_warning():
        for number, cache in enumerate(caches):
            cache.read(f"{number}.mp4", FOUR, root=videos)
    with pytest.warns(UserWarning) as said:
        for cache in caches:
            assert same(cache.read("2.mp4", FOUR, root=videos), read_clip("2.mp4", FOUR, root=videos))
    (warning,) = said
    for part in (str(folder), "it holds", "its limit is", "data.cache_gb"):
        assert part in str(warning.message)
    assert sum(entry.stat().st_size for entry in entries(folder)) <= 2 * size + 100
    opens.clear()
    for number in range(2):
        cache.read(f"{number}.mp4", FOUR, root=videos)
    assert opens == [], "a full cache is still read"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"disk is full .*data\.cache_dir"),
        (errno.EDQUOT, r"disk is full .*data\.cache_dir"),
        (errno.EROFS, r"cannot be written to .*data\.cache_dir.*data\.cache_clips"),
    ],
    ids=["full", "quota", "read-only"],
)
def test_a_disk_that_takes_nothing_is_said_once(videos, tmp_path, monkeypatch, opens, number, message):
    cache = make(tmp_path / "cache")
    cache.read("0.mp4", FOUR, root=videos)
    attempts = []

    def refuse(descriptor: int) -> None:
        attempts.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.warns(UserWarning, match=message) as said:
        for name in ("1.mp4", "2.mp4", "1.mp4"):
            assert same(cache.read(name, FOUR, root=videos), read_clip(name, FOUR, root=videos))
    assert len(said) == 1
    assert len(attempts) == 1
    assert len(entries(cache.folder)) == 1
    opens.clear()
    cache.read("0.mp4", FOUR, root=videos)
    assert opens == []


def test_a_folder_that_cannot_be_made_is_said_once(videos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = make(tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="cannot be written to") as said:
        for _ in range(2):
            assert same(cache.read("0.mp4", FOUR, root=videos), read_clip("0.mp4", FOUR, root=videos))
    assert len(said) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said_once_and_read(videos, tmp_path, opens):
    cache = make(tmp_path / "cache")
    cache.read("0.mp4", FOUR, root=videos)
    cache.folder.chmod(0o500)
    try:
        with pytest.warns(UserWarning, match="cannot be written to") as said:
            for name in ("1.mp4", "2.mp4"):
                assert same(cache.read(name, FOUR, root=videos), read_clip(name, FOUR, root=videos))
        assert len(said) == 1
        opens.clear()
        cache.read("0.mp4", FOUR, root=videos)
        assert opens == []
    finally:
        cache.folder.chmod(0o700)


def test_an_entry_that_cannot_be_read_is_said_once(videos, tmp_path):
    cache = make(tmp_path)
    cache.read("0.mp4", FOUR, root=videos)
    (entry,) = entries(tmp_path)
    entry.unlink()
    entry.mkdir()
    with pytest.warns(UserWarning, match="cannot be read") as said:
        for _ in range(2):
            assert same(cache.read("0.mp4", FOUR, root=videos), read_clip("0.mp4", FOUR, root=videos))
    assert len(said) == 1


def test_the_folder_is_private_unless_somebody_made_it(videos, tmp_path):
    make(tmp_path / "made").read("0.mp4", FOUR, root=videos)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    make(shared).read("0.mp4", FOUR, root=videos)
    assert shared.stat().st_mode & 0o777 == 0o775


def test_default_folder(monkeypatch, tmp_path, clip_cache_folder):
    assert default_folder() == clip_cache_folder, "tests stay out of the user's own"
    monkeypatch.delenv("RBFT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_folder() == Path("/elsewhere/rbft/clips")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert default_folder() == tmp_path / ".cache/rbft/clips"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == tmp_path / ".cache/rbft/clips"
