"""What is taken from a clip is gone, and everything else stays."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.support.models import make_clip

from rbft.video.clip_control import controlled_frames


@pytest.mark.parametrize("control", ["none", "blank", "reversed", "shuffled", "dropped", "blurred"])
@pytest.mark.parametrize("frames", [1, 2, 4, 8, 16])
def test_times_and_numbers_stay(control, frames):
    clip = make_clip(0, frames=frames)
    found = clip.under(control)
    assert (found.timestamps, found.indices, found.metadata()) == (clip.timestamps, clip.indices, clip.metadata())
    assert found.frames.shape == clip.frames.shape and found.frames.dtype == torch.uint8


@pytest.mark.parametrize("frames", [4, 8, 16, 32])
def test_frames_are_as_said(frames):
    clip = make_clip(0, frames=frames)
    assert torch.equal(clip.under("none").frames, clip.frames)
    assert set(clip.under("blank").frames.unique().tolist()) == {128}
    assert torch.equal(clip.under("reversed").frames, clip.frames.flip(0))
    shuffled = clip.under("shuffled").frames
    places = [next(i for i in range(frames) if torch.equal(clip.frames[i], frame)) for frame in shuffled]
    assert sorted(places) == list(range(frames))
    steps = [b - a for a, b in itertools.pairwise(places)]
    assert sum(abs(step) == 1 for step in steps) <= frames // 2
    assert torch.equal(clip.under("shuffled").frames, shuffled), "the same order every time"


def test_half_of_the_frames_are_dropped():
    frames = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 3, 4, 4)
    assert controlled_frames(frames, "dropped")[:, 0, 0, 0].tolist() == [0, 0, 2, 2, 4]


def test_a_blur_takes_the_detail_and_leaves_the_mean():
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    checks = ((rows + columns) % 2 * 255).to(torch.uint8).expand(2, 3, 40, 60)
    blurred = controlled_frames(checks, "blurred")
    assert (blurred.shape, blurred.dtype) == (checks.shape, torch.uint8)
    assert blurred.float().std() < 3 and abs(blurred.float().mean() - 127.5) < 2
    # what is large stays: one half dark, the other bright
    halves = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    halves[..., 30:] = 255
    soft = controlled_frames(halves, "blurred").float()
    assert soft[..., :20].mean() < 5 and soft[..., 40:].mean() > 250 and 50 < soft[0, 0, 20, 29] < 205
    assert controlled_frames(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "blurred").shape == (1, 3, 2, 2)
