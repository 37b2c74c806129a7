"""A bound on the cells of a clip: frames get smaller before they get fewer, and no clip costs more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.videos import read_number, write_video

from rbft.video.budget import CellBudget
from rbft.video.clip import read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_entry import clip_key
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling, Timeline


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "wide.mp4", num_frames=24, size=(96, 160), fps=8)


def cells(size: tuple[int, int], frames: int, budget: CellBudget) -> int:
    height, width = size
    assert height % budget.side == 0 and width % budget.side == 0
    return -(-frames // budget.group) * (height // budget.side) * (width // budget.side)


@given(
    cells_=st.integers(1, 4000),
    side=st.integers(8, 64),
    group=st.integers(1, 4),
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    frames=st.integers(1, 64),
    max_pixels=st.none() | st.integers(1, 10**7),
)
def test_no_clip_costs_more(cells_, side, group, height, width, frames, max_pixels):
    budget = CellBudget(cells_, side, group)
    frames = min(frames, budget.max_frames)
    size = budget.frame_size(frames, height, width, max_pixels)
    assert cells(size, frames, budget) <= cells_
    assert max_pixels is None or size[0] * size[1] <= max(max_pixels, side**2)
    # nothing is enlarged beyond a cell
    assert size[0] <= max(height, side) and size[1] <= max(width, side)


def test_frames_get_smaller_down_to_one_cell():
    sizes = [CellBudget(most, 16, 2).frame_size(8, 96, 160) for most in (1000, 200, 60, 24, 4)]
    assert sizes == [(96, 160), (80, 144), (48, 80), (16, 48), (16, 16)]


def test_too_many_frames_are_refused():
    budget = CellBudget(4, 16, 2)
    assert budget.max_frames == 8
    with pytest.raises(ValueError, match="9 frames do not go into 4 cells; 8 are the most"):
        budget.frame_size(9, 96, 160)


def test_a_clip_is_read_within_its_budget(video: Path):
    budget = CellBudget(60, 16, 2)
    clip = read_clip(video, ClipSpec(FrameSampling(num_frames=8), budget=budget))
    assert clip.frames.shape == (8, 3, 48, 80)
    assert [read_number(frame) for frame in clip.frames.numpy()] == list(clip.indices)
    # fewer frames leave more to each
    assert read_clip(video, ClipSpec(FrameSampling(fps=1), budget=budget)).frames.shape == (3, 3, 64, 112)
    small = ClipSpec(FrameSampling(fps=1), max_pixels=32 * 48, budget=budget)
    assert read_clip(video, small).frames.shape == (3, 3, 16, 48)


def test_kept_clips_are_told_apart_by_their_budget(video: Path, tmp_path: Path):
    cache = ClipCache(tmp_path / "cache", 10**9, lambda _: "content")
    sampling = FrameSampling(num_frames=8)
    shapes = [
        cache.read(video, ClipSpec(sampling, budget=budget)).frames.shape[-2:]
        for budget in (None, CellBudget(60, 16, 2), CellBudget(24, 16, 2), CellBudget(60, 16, 2))
    ]
    assert shapes == [(96, 160), (48, 80), (16, 48), (48, 80)]
    keys = {clip_key("content", ClipSpec(sampling, budget=CellBudget(60, 16, group))) for group in (1, 2)}
    assert len(keys | {clip_key("content", ClipSpec(sampling))}) == 3


def test_sampling_takes_at_most_so_many_frames():
    assert FrameSampling(num_frames=8).at_most(4) == FrameSampling(num_frames=4)
    assert (
        FrameSampling(num_frames=8).at_most(None)
        == FrameSampling(num_frames=8)
        == FrameSampling(num_frames=8).at_most(9)
    )
    by_rate = FrameSampling(fps=2, max_frames=20, mode="random").at_most(5)
    assert by_rate == FrameSampling(fps=2, max_frames=5, mode="random")
    assert by_rate.count(Timeline(100, 10.0)) == 5 and by_rate.count(Timeline(10, 1.0)) == 2
