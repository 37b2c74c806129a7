"""The clip cache answers as decoding does, whatever happens to its folder, and never twice with work once done."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tests.support.clip_caches import FOUR, make, same
from tests.support.videos import numbered_frames, read_number, write_video
from tests.support.watch import entries, no_warning

from rbft.errors import VideoError
from rbft.video import clip_cache, clip_entry
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import Limits
from rbft.video.sampling import FrameSampling


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"spec": ClipSpec(FOUR.sampling, max_pixels=1000)},
        {"spec": ClipSpec(FrameSampling(fps=3.0))},
        {"spec": ClipSpec(FrameSampling(num_frames=60))},
        {"spec": ClipSpec(FOUR.sampling, control="reversed")},
    ],
    ids=str,
)
def test_a_cached_clip_is_the_decoded_one(videos, tmp_path, opens, settings):
    settings = {"spec": FOUR, "root": videos, **settings}
    expected = read_clip("0.mp4", **settings)
    with no_warning():
        assert same(make(tmp_path / "cache").read("0.mp4", **settings), expected)
        decoded = len(opens)
        cached = make(tmp_path / "cache").read("0.mp4", **settings)
    assert len(opens) == decoded
    assert same(cached, expected)
    assert cached.frames.is_contiguous()
    assert [type(getattr(cached, field.name)) for field in fields(Clip)] == [
        type(getattr(expected, field.name)) for field in fields(Clip)
    ]


def test_whoever_writes_to_the_frames_writes_to_a_copy(videos, tmp_path):
    cache = make(tmp_path)
    expected = cache.read("0.mp4", FOUR, root=videos)
    (entry,) = entries(tmp_path)
    content = entry.read_bytes()
    with no_warning():
        mine, other = cache.read("0.mp4", FOUR, root=videos), cache.read("0.mp4", FOUR, root=videos)
        mine.frames.fill_(7)
        mine.frames.numpy()[0] = 8
    assert torch.equal(other.frames, expected.frames)
    assert same(cache.read("0.mp4", FOUR, root=videos), expected)
    assert entry.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"spec": ClipSpec(FrameSampling(num_frames=5))},
        {"spec": ClipSpec(FrameSampling(fps=2.0))},
        {"spec": ClipSpec(FOUR.sampling, max_pixels=1000)},
        {"spec": replace(FOUR, limits=Limits(max_frames=500))},
        {"path": "1.mp4"},
    ],
    ids=str,
)
def test_another_request_is_another_entry(videos, tmp_path, opens, change):
    request = {"path": "0.mp4", "spec": FOUR, "root": videos}
    cache = make(tmp_path)
    cache.read(**request)
    opens.clear()
    assert same(cache.read(**{**request, **change}), read_clip(**{**request, **change}))
    assert len(opens) == 2
    assert len(entries(tmp_path)) == 2


def test_every_sampling_has_its_entry(videos, tmp_path):
    specs = [ClipSpec(FrameSampling(fps=fps, max_frames=most)) for fps in (2.0, 20.0) for most in (8, 9)]
    for _ in range(2):
        for spec in specs:
            clip = make(tmp_path).read("0.mp4", spec, root=videos)
            assert same(clip, read_clip("0.mp4", spec, root=videos))
    assert len(entries(tmp_path)) == len(specs)


@pytest.mark.parametrize(("module", "name"), [(clip_entry, "_SCHEMA"), (av, "__version__")], ids=["schema", "decoder"])
def test_another_version_is_another_entry(videos, tmp_path, monkeypatch, module, name):
    make(tmp_path).read("0.mp4", FOUR, root=videos)
    monkeypatch.setattr(module, name, 1000)
    make(tmp_path).read("0.mp4", FOUR, root=videos)
    assert len(entries(tmp_path)) == 2


def test_a_limit_refuses_a_cached_video_too(videos, tmp_path):
    cache = make(tmp_path)
    cache.read("0.mp4", FOUR, root=videos)
    with pytest.raises(VideoError, match="20 frames or more, over the limit of 5"):
        cache.read("0.mp4", replace(FOUR, limits=Limits(max_frames=5)), root=videos)


def test_a_changed_video_is_never_answered_with_old_frames(tmp_path):
    video, cache = tmp_path / "a.mp4", make(tmp_path / "cache")
    write_video(video, numbered_frames(40)[:20])
    cache.read(video, FOUR)
    write_video(video, numbered_frames(40)[20:])
    assert read_number(cache.read(video, FOUR).frames[0].numpy()) == 22
    assert len(entries(cache.folder)) == 2


def test_a_video_that_changes_while_it_is_decoded_is_not_kept(tmp_path, monkeypatch):
    video, cache = tmp_path / "a.mp4", make(tmp_path / "cache")
    write_video(video, num_frames=20)

    def decode_and_replace(*arguments):
        clip = read_clip(*arguments)
        write_video(video, num_frames=30)
        return clip

    monkeypatch.setattr(clip_cache, "read_clip", decode_and_replace)
    assert cache.read(video, FOUR).total_num_frames == 20
    assert entries(cache.folder) == []


def test_a_control_is_no_other_entry_and_changes_none(videos, tmp_path, opens):
    cache = make(tmp_path / "cache")
    blank = cache.read("0.mp4", replace(FOUR, control="blank"), root=videos)
    opens.clear()
    assert set(blank.frames.unique().tolist()) == {128}
    assert len(cache.read("0.mp4", FOUR, root=videos).frames.unique()) > 2
    assert opens == [] and len(entries(cache.folder)) == 1


def test_equal_videos_share_an_entry_under_their_own_names(videos, tmp_path, opens):
    shutil.copy(videos / "0.mp4", tmp_path / "other.mp4")
    cache = make(tmp_path / "cache")
    cache.read("0.mp4", FOUR, root=videos)
    opens.clear()
    assert cache.read("other.mp4", FOUR, root=tmp_path).path == "other.mp4"
    assert opens == []


def test_what_lies_outside_of_the_root_is_refused_although_it_is_cached(videos, tmp_path):
    cache = make(tmp_path / "cache")
    cache.read("0.mp4", FOUR, root=videos)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.mp4").symlink_to(videos / "0.mp4")
    with pytest.raises(VideoError, match="outside of the data folder"):
        cache.read("link.mp4", FOUR, root=tmp_path / "root")


def test_an_unreadable_video_is_no_entry(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    cache = make(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(VideoError):
            cache.read(tmp_path / "a.mp4", FOUR)
    assert entries(cache.folder) == []


def test_random_frames_are_decoded_every_time(videos, tmp_path, opens):
    cache, spec = make(tmp_path / "cache"), FOUR.with_mode("random")
    clips = [cache.read("0.mp4", spec, root=videos, rng=np.random.default_rng(seed)) for seed in (0, 1, 1)]
    assert len(opens) == 3
    assert clips[0].indices != clips[1].indices
    assert same(clips[1], clips[2])
    assert entries(cache.folder) == []


def _fill(folder: Path, videos: Path, start, results) -> None:
    start.wait()
    cache = make(folder)
    for number in range(3):
        results.put((number, hashlib.sha256(cache.read(f"{number}.mp4", FOUR, root=videos).frames.numpy()).digest()))


def test_processes_fill_a_folder_at_once(videos, tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.SimpleQueue()
    processes = [context.Process(target=_fill, args=(tmp_path / "cache", videos, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get() for _ in range(4 * 3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(set(found)) == 3
    files = entries(tmp_path / "cache")
    assert len(files) == 3
    assert {file.suffix for file in files} == {".clip"}
    _all_whole(tmp_path / "cache", videos)


def _all_whole(folder: Path, videos: Path) -> None:
    with no_warning():
        for number in range(3):
            expected = read_clip(f"{number}.mp4", FOUR, root=videos)
            assert same(make(folder).read(f"{number}.mp4", FOUR, root=videos), expected)


def _die_while_writing(folder: Path, videos: Path) -> None:
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    make(folder).read("0.mp4", FOUR, root=videos)


def test_a_kill_while_writing_leaves_no_torn_entry(videos, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(tmp_path, videos))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = entries(tmp_path)
    assert left.suffix == ".tmp"
    unrelated = tmp_path / "notes.tmp"
    unrelated.write_text("of somebody else")
    for file in (left, unrelated):
        os.utime(file, (time.time() - 7200,) * 2)
    _all_whole(tmp_path, videos)
    assert not left.exists(), "abandoned files would take room for ever"
    assert unrelated.exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "in its head": lambda content: content[:10],
    "in its header": lambda content: content[:60],
    "in its frames": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
    "other header": lambda content: content.replace(b'"shape"', b'"shaqe"'),
    "no header": lambda content: b"\0" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_replaced_and_said_once(videos, tmp_path, damage):
    cache = make(tmp_path)
    written = {}
    for number in range(2):
        cache.read(f"{number}.mp4", FOUR, root=videos)
        (entry,) = set(entries(tmp_path)) - set(written)
        written[entry] = entry.read_bytes()
    for entry, content in written.items():
        entry.write_bytes(damage(content))
    with pytest.warns(UserWarning, match=r"damaged .* removed and the video decoded again") as said:
        for number in range(2):
            assert same(cache.read(f"{number}.mp4", FOUR, root=videos), read_clip(f"{number}.mp4", FOUR, root=videos))
    assert len(said) == 1
    assert {entry: entry.read_bytes() for entry in entries(tmp_path)} == written


def test_the_entry_of_another_clip_is_damage(videos, tmp_path):
    cache = make(tmp_path)
    cache.read("0.mp4", FOUR, root=videos)
    (first,) = entries(tmp_path)
    cache.read("1.mp4", FOUR, root=videos)
    (second,) = set(entries(tmp_path)) - {first}
    shutil.copy(first, second)
    with pytest.warns(UserWarning, match="of another clip"):
        assert same(cache.read("1.mp4", FOUR, root=videos), read_clip("1.mp4", FOUR, root=videos))


def test_a_clip_kept_before_times_were_told_otherwise_is_looked_at_once(tmp_path, opens, monkeypatch):
    path = write_video(tmp_path / "a.mkv", num_frames=20, size=(48, 64))
    expected, folder = read_clip(path, FOUR), tmp_path / "cache"
    wrong = replace(expected, fps=1000.0, duration=0.02, indices=(0, 1, 2, 3), frames=expected.frames * 0)
    for kept in (expected, wrong):
        with monkeypatch.context() as before:
            before.setattr(clip_entry, "READING", 0)
            before.setattr(clip_cache, "read_clip", lambda *_, kept=kept: kept)
            shutil.rmtree(folder, ignore_errors=True)
            make(folder).read(path, FOUR)
        with no_warning():
            opens.clear()
            with monkeypatch.context() as patch:
                if kept is expected:
                    patch.setattr(clip_cache, "read_clip", None)
                assert same(make(folder).read(path, FOUR), expected)
            assert opens, "it is looked at"
            opens.clear()
            assert same(make(folder).read(path, FOUR), expected)
            assert not opens, "once"
