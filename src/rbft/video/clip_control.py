"""Clips that lack something, to find out what a model looks at: no picture, no detail, or no order in time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rbft.video.clip_spec import ClipControl


def controlled_frames(frames: Tensor, control: ClipControl) -> Tensor:
    """Frames grey, blurred, backwards, out of order, or half of them missing.

    Args:
        frames: (T, C, H, W) uint8.
        control: what is done to them; `shuffled` puts clips of one length into the same wrong order, `dropped` has each
            second frame repeat the one before, `blurred` is a Gaussian blur of a tenth of the shorter side (sigma).
    """
    if control == "blank":
        return torch.full_like(frames, 128)
    if control == "reversed":
        return frames.flip(0)
    if control == "shuffled":
        return frames[torch.from_numpy(_wrong_order(len(frames)))]
    if control == "dropped":
        return frames[torch.arange(len(frames)) // 2 * 2]
    if control == "blurred":
        return _blurred(frames)
    return frames


def _blurred(frames: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import gaussian_blur

    shorter = min(frames.shape[-2:])
    sigma = shorter / 10
    # three sigma on both sides, as far as there is room
    reach = max(1, min(round(3 * sigma), (shorter - 1) // 2))
    return gaussian_blur(frames, [2 * reach + 1] * 2, [sigma] * 2)


def _wrong_order(count: int) -> np.ndarray:
    """An order of so many frames that is neither forwards nor backwards where there are at least four."""
    rng = np.random.default_rng(count)
    order = rng.permutation(count)
    while count > 3 and (np.diff(order) == 1).sum() + (np.diff(order) == -1).sum() > count // 2:
        order = rng.permutation(count)
    return order
