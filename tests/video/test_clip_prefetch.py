"""Clips kept while a whole video is decoded are those that a reader gives, to the bit, or they are not kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.clip_caches import FOUR, GB, make, same
from tests.support.videos import write_video
from tests.support.watch import entries
from tests.video.test_reader import BY_SEEKING, FROM_THE_START

from rbft.data import video_facts
from rbft.data.survey import survey
from rbft.data.video_facts import inspect_video
from rbft.errors import VideoError
from rbft.video import clip_prefetch
from rbft.video.budget import CellBudget
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_entry import CLIP_FIELDS
from rbft.video.clip_prefetch import ClipRequest
from rbft.video.clip_spec import ClipSpec
from rbft.video.frame_index import build_index
from rbft.video.sampling import FrameSampling

CODINGS = BY_SEEKING | FROM_THE_START
SAMPLINGS = (FrameSampling(num_frames=6), FrameSampling(fps=4.0), FrameSampling(num_frames=100))


def request_of(folder: Path, spec: ClipSpec, max_bytes: int = GB) -> ClipRequest:
    return ClipRequest(folder, max_bytes, spec)


def look(root: Path, names: Sequence[str], requests: Sequence[ClipRequest], cache: Path, workers: int = 1) -> None:
    survey(root, names, cache=cache / "survey", console=Console(quiet=True), workers=workers, requests=requests)


def kept(cache: ClipCache, root: Path, name: str, request: ClipRequest, monkeypatch: pytest.MonkeyPatch) -> Clip:
    """What is in the cache; nothing is decoded for it."""
    with monkeypatch.context() as patch:
        patch.setattr("rbft.video.clip_cache.read_clip", None)
        return cache.read(name, request.spec, root)


@pytest.mark.parametrize("name", CODINGS, ids=[name.replace(" ", "_") for name in CODINGS])
def test_a_kept_clip_is_the_clip_that_is_read(name, tmp_path, monkeypatch):
    file, options = CODINGS[name]
    write_video(tmp_path / file, num_frames=40, size=(48, 64), **options)
    folder = tmp_path / "cache"
    requests = [
        *(request_of(folder, ClipSpec(sampling)) for sampling in SAMPLINGS),
        request_of(folder, ClipSpec(FOUR.sampling, max_pixels=32 * 32, multiple=4)),
        request_of(folder, ClipSpec(FOUR.sampling, budget=CellBudget(16, 14, 2))),
    ]
    look(tmp_path, [file], requests, tmp_path)
    assert len(entries(folder)) == len(requests)
    for one in requests:
        clip = kept(make(folder), tmp_path, file, one, monkeypatch)
        assert same(clip, read_clip(file, one.spec, tmp_path))


@pytest.mark.slow
@pytest.mark.media
def test_real_files_are_kept_as_they_are_read_or_not_at_all(media_root, tmp_path, monkeypatch):
    root, one = media_root / "hard", request_of(tmp_path, ClipSpec(FrameSampling(num_frames=8), 112 * 112))
    names = sorted(path.name for path in root.iterdir())
    look(root, names, [one], tmp_path, workers=2)
    found = 0
    for name in names:
        try:
            clip = read_clip(name, one.spec, root)
        except VideoError:
            with pytest.raises((TypeError, VideoError)):
                kept(make(tmp_path), root, name, one, monkeypatch)
            continue
        assert same(kept(make(tmp_path), root, name, one, monkeypatch), clip), name
        found += 1
    assert found > 40


def test_nothing_is_kept_of_a_video_that_is_cut_or_that_changes_meanwhile(tmp_path):
    path = write_video(tmp_path / "a.avi", num_frames=40, size=(48, 64), codec="mpeg4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    one = request_of(tmp_path / "cache", FOUR)
    look(tmp_path, ["a.avi"], [one], tmp_path)
    path.write_bytes(whole)
    assert inspect_video("a.avi", tmp_path, "the digest of another file", 60, [one]).readable
    assert entries(tmp_path / "cache") == []
    look(tmp_path, ["a.avi"], [one], tmp_path)
    assert len(entries(tmp_path / "cache")) == 1


def test_a_clip_that_is_too_large_is_left_to_its_reader(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", num_frames=40, size=(48, 64))
    monkeypatch.setattr(clip_prefetch, "_MOST_BYTES", 4 * 3 * 48 * 64)
    folder = tmp_path / "cache"
    look(
        tmp_path,
        ["a.mp4"],
        [request_of(folder, FOUR), request_of(folder, ClipSpec(FrameSampling(num_frames=5)))],
        tmp_path,
    )
    assert len(entries(folder)) == 1


def test_the_bound_of_the_cache_holds(tmp_path):
    write_video(tmp_path / "a.mp4", num_frames=40, size=(48, 64))
    folder = tmp_path / "cache"
    with pytest.warns(UserWarning, match="nothing more is stored"):
        look(tmp_path, ["a.mp4"], [request_of(folder, FOUR, max_bytes=1000)], tmp_path)
    assert entries(folder) == []


def test_without_a_frame_rate_nothing_is_sampled_by_it(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", num_frames=8, size=(48, 64))
    monkeypatch.setattr(video_facts, "build_index", lambda video: replace(build_index(video), fps=0.0))
    folder = tmp_path / "cache"
    look(
        tmp_path, ["a.mp4"], [request_of(folder, ClipSpec(FrameSampling(fps=2.0))), request_of(folder, FOUR)], tmp_path
    )
    assert len(entries(folder)) == 1, "the other is kept"


def test_processes_of_a_survey_keep_clips_without_torch(tmp_path):
    code = "import sys, rbft.data.survey, rbft.video.clip_prefetch; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    names = [write_video(tmp_path / f"{number}.mp4", num_frames=20 + number, size=(48, 64)).name for number in range(5)]
    look(tmp_path, names, [request_of(tmp_path / "cache", FOUR)], tmp_path, workers=2)
    assert len(entries(tmp_path / "cache")) == 5


@pytest.mark.parametrize("spec", [FOUR.with_mode("random"), FOUR.of_part((0.0, 1.0))])
def test_random_frames_and_parts_cannot_be_requested(spec, tmp_path):
    with pytest.raises(ValueError, match="only clips of whole videos sampled uniformly"):
        request_of(tmp_path, spec)


def test_an_entry_has_the_fields_of_a_clip():
    assert [field.name for field in fields(Clip)] == list(CLIP_FIELDS)
