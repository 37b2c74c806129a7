"""Clips that lack something, to find out what a model looks at: no picture, or no order in time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rbft.video.clip_spec import ClipControl


def controlled_frames(frames: Tensor, control: ClipControl) -> Tensor:
    """Frames grey, backwards or out of order.

    Args:
        frames: (T, C, H, W) uint8.
        control: what is done to them; `shuffled` puts clips of one length into the same wrong order.
    """
    if control == "blank":
        return torch.full_like(frames, 128)
    if control == "reversed":
        return frames.flip(0)
    if control == "shuffled":
        return frames[torch.from_numpy(_wrong_order(len(frames)))]
    return frames


def _wrong_order(count: int) -> np.ndarray:
    """An order of so many frames that is neither forwards nor backwards where there are at least four."""
    rng = np.random.default_rng(count)
    order = rng.permutation(count)
    while count > 3 and (np.diff(order) == 1).sum() + (np.diff(order) == -1).sum() > count // 2:
        order = rng.permutation(count)
    return order
