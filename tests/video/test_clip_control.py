"""What is taken from a clip is gone, and everything else stays."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.support.models import make_clip


@pytest.mark.parametrize("control", ["none", "blank", "reversed", "shuffled"])
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
