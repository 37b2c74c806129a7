"""Which of the frames a reader gives are not those that were asked for, told by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

_HEIGHT, _WIDTH = 36, 48
# In levels of 255, root mean square over a thumbnail: what scaling and colour conversion do at most to the difference
# of a frame from itself, and what only the mapping of HDR colours does.
_ROUNDING = 0.5
_CONVERSION = 30.0
_ALIKE = 0.5  # correlation of thumbnails, which no mapping of colours brings so low


@dataclass(frozen=True, eq=False)
class Reference:
    """Every frame of a video as decoding from its start displays them.

    Args:
        upright: Thumbnails as displayed, (N, 3, H, W) float.
        stored: Thumbnails as coded, that is before the rotation for display; `upright` itself where there is none.
    """

    upright: Tensor
    stored: Tensor

    @property
    def num_frames(self) -> int:
        """Frames that are displayed."""
        return len(self.upright)

    def judge(self, frames: Any, indices: Sequence[int]) -> tuple[int, bool]:
        """Counts the wrong ones.

        A frame is wrong if another frame of the video is clearly more like it (half the distance) than the one asked
        for, or if nothing of the kind is. Readers scale and convert colours a little differently, which moves a frame
        away from all of the reference alike; frames of a still scene cannot be told apart and count as right.

        Args:
            frames: Of one reader, (T, C, H, W) or (T, H, W, C) uint8.
            indices: What was asked for.

        Returns:
            The wrong frames, and whether the reader left out the rotation for display (which makes no frame wrong).

        Raises:
            ValueError: There are not as many frames as asked for.
        """
        if len(frames) != len(indices):
            raise ValueError(f"gives {len(frames)} frames of {len(indices)}")
        got = thumbnails(frames).flatten(1)
        wrong = [_wrong(got, reference.flatten(1), indices) for reference in (self.upright, self.stored)]
        return min(wrong), wrong[1] < wrong[0]


def _wrong(got: Tensor, reference: Tensor, indices: Sequence[int]) -> int:
    distances = torch.cdist(got, reference) / got.shape[1] ** 0.5
    asked = distances[torch.arange(len(got)), torch.as_tensor(list(indices))]
    nearest = distances.min(dim=1).values
    another = (asked > _CONVERSION) & (_correlation(got, reference[list(indices)]) < _ALIKE)
    return int(((asked > 2 * nearest + _ROUNDING) | another).sum())


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    """Pearson correlation of each row with its partner; 0 where one is flat."""
    left, right = (rows - rows.mean(dim=1, keepdim=True) for rows in (left, right))
    return cosine_similarity(left, right, dim=1)


def thumbnails(frames: Any) -> Tensor:
    """Box-averaged small versions (T, 3, H, W) float of frames (T, C, H, W) or (T, H, W, C)."""
    pictures = torch.as_tensor(frames)
    if pictures.shape[1] != 3:
        pictures = pictures.permute(0, 3, 1, 2)
    return torch.cat([adaptive_avg_pool2d(picture[None].float(), (_HEIGHT, _WIDTH)) for picture in pictures])


def decode_reference(path: Path) -> Reference:
    """Decodes a video from its first to its last frame.

    Raises:
        av.FFmpegError: It cannot be opened, or not decoded to its end.
        ValueError: It has no frame.
    """
    upright, stored = [], []
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video:
            raise ValueError("has no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            picture = frame.to_ndarray(format="rgb24")
            turned = np.rot90(picture, round(frame.rotation / 90) % 4)
            upright.append(thumbnails(turned[None].copy()))
            stored.append(thumbnails(picture[None]) if frame.rotation else upright[-1])
    if not upright:
        raise ValueError("holds no frame")
    return Reference(torch.cat(upright), torch.cat(stored))
