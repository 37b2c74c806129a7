"""Clips that lack something, to find out what a model looks at: no picture, or no order in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from rbft.video.clip import Clip

ClipControl = Literal["none", "blank", "reversed", "shuffled"]


def control_clip(clip: Clip, control: ClipControl) -> Clip:
    """The clip with its frames grey, backwards or out of order; their times and numbers stay as they were.

    Args:
        clip: The clip.
        control: What is done to it; `shuffled` puts clips of one length into the same wrong order.
    """
    frames = clip.frames
    if control == "blank":
        return replace(clip, frames=torch.full_like(frames, 128))
    if control == "reversed":
        return replace(clip, frames=frames.flip(0))
    if control == "shuffled":
        return replace(clip, frames=frames[torch.from_numpy(_wrong_order(len(frames)))])
    return clip


def _wrong_order(count: int) -> np.ndarray:
    """An order of so many frames that is neither forwards nor backwards where there are at least four."""
    rng = np.random.default_rng(count)
    order = rng.permutation(count)
    while count > 3 and (np.diff(order) == 1).sum() + (np.diff(order) == -1).sum() > count // 2:
        order = rng.permutation(count)
    return order
