"""Clips: what the rest of the package reads of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.videos import read_number, write_video

from rbft.errors import VideoError
from rbft.video.budget import fit_size
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.reader import read_frames
from rbft.video.sampling import FrameSampling

sides = st.integers(1, 8000)


@given(sides, sides, st.integers(1, 20_000_000), st.integers(1, 32))
def test_fit_size(height: int, width: int, max_pixels: int, multiple: int) -> None:
    fitted = fit_size(height, width, max_pixels, multiple)
    smallest = min(height, multiple) * min(width, multiple)
    assert fitted[0] * fitted[1] <= max(max_pixels, smallest)
    for got, original in zip(fitted, (height, width), strict=True):
        assert 1 <= got <= original
        assert got % multiple == 0 or got == original < multiple
    assert fit_size(width, height, max_pixels, multiple) == fitted[::-1]
    if min(fitted) >= 8 * multiple:  # coarse steps bend the aspect ratio of small results
        assert fitted[0] / fitted[1] == pytest.approx(height / width, rel=0.15)
    if multiple == 1 and height * width <= max_pixels:
        assert fitted == (height, width)


def test_fit_size_by_example() -> None:
    assert fit_size(1080, 1920, 256 * 256) == (192, 340)
    assert fit_size(240, 320, 240 * 320) == (240, 320)
    assert fit_size(241, 321, 10**6) == (240, 320)
    assert fit_size(720, 1280, 200_000, multiple=28) == (308, 588)
    with pytest.raises(ValueError, match="at least 1"):
        fit_size(0, 10, 100)


@pytest.mark.parametrize("file", ["a.mp4", "a.avi", "a.mkv"])
def test_a_clip(file: str, tmp_path: Path) -> None:
    codec = "mpeg4" if file == "a.avi" else "libx264"
    path = write_video(tmp_path / file, num_frames=50, fps=10, bframes=2, codec=codec)
    clip = read_clip(file, ClipSpec(FrameSampling(num_frames=4)), root=tmp_path)
    assert clip.indices == (6, 18, 31, 43)
    assert [read_number(frame.numpy()) for frame in clip.frames] == [6, 18, 31, 43]
    assert clip.timestamps == pytest.approx((0.6, 1.8, 3.1, 4.3))
    assert (clip.path, clip.total_num_frames) == (file, 50)
    assert (clip.fps, clip.duration) == (pytest.approx(10), pytest.approx(5))
    assert clip.metadata() == {
        "total_num_frames": 50,
        "fps": clip.fps,
        "duration": clip.duration,
        "frames_indices": [6, 18, 31, 43],
    }
    assert clip.frames.dtype == torch.uint8
    assert torch.equal(clip.frames, read_frames(path, clip.indices).frames)


def test_a_clip_of_a_short_video_repeats_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=1)
    clip = read_clip(path, ClipSpec(FrameSampling(num_frames=4)))
    assert clip.indices == (0, 0, 0, 0)
    assert clip.timestamps == (0.0, 0.0, 0.0, 0.0)
    assert clip.frames.shape == (4, 3, 96, 128)
    assert clip.duration > 0


def test_a_clip_by_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=50, fps=10)
    assert len(read_clip(path, ClipSpec(FrameSampling(fps=2))).indices) == 10
    assert len(read_clip(path, ClipSpec(FrameSampling(fps=2, max_frames=3))).indices) == 3


def test_random_clips_follow_the_generator(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=50, gop=10)
    sampling = FrameSampling(num_frames=5, mode="random")
    clips = [read_clip(path, ClipSpec(sampling), rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert clips[0].indices == clips[1].indices != clips[2].indices
    for clip in clips:
        assert tuple(read_number(frame.numpy()) for frame in clip.frames) == clip.indices


@pytest.mark.parametrize(("rotation", "shape"), [(0, (48, 64)), (90, (64, 48))])
def test_the_size_of_a_clip(rotation: int, shape: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5, rotation=rotation)
    sampling = FrameSampling(num_frames=2)
    assert read_clip(path, ClipSpec(sampling, 48 * 64)).frames.shape[2:] == shape
    for whole in (ClipSpec(sampling, 10**6), ClipSpec(sampling)):
        assert read_clip(path, whole).frames.shape[2:] == tuple(2 * side for side in shape)


def test_a_clip_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"^missing\.mp4: no such file"):
        read_clip("missing.mp4", ClipSpec(FrameSampling(num_frames=2)), root=tmp_path)
