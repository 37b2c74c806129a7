"""Where decoded frames go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from av.video.frame import VideoFrame

from rbft.video.convert import RGBConverter


class FrameTarget:
    """The result under construction: every wanted frame is converted once and put where it was asked for.

    Args:
        indices: The wanted frames' indices, in the order of the result, with repetitions or without.
        convert: Makes frames of one size.
    """

    def __init__(self, indices: Sequence[int], convert: RGBConverter) -> None:
        self._convert = convert
        self._rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            self._rows.setdefault(index, []).append(row)
        self._length = len(indices)
        self._frames: np.ndarray | None = None

    def size_for(self, frame: VideoFrame) -> tuple[int, int]:
        """Height and width of all frames, settled by the first."""
        return self._convert.size_for(frame)

    def put(self, index: int, frame: VideoFrame) -> None:
        """Convert a wanted frame.

        Raises:
            VideoError: Its colours cannot be converted.
        """
        if self._frames is None:
            height, width = self._convert.size_for(frame)
            self._frames = np.empty((self._length, 3, height, width), np.uint8)
        first, *others = self._rows[index]
        self._convert.write(frame, self._frames[first])
        for row in others:
            self._frames[row] = self._frames[first]

    def array(self) -> np.ndarray:
        """All frames, (T, 3, H, W) uint8 RGB."""
        if self._frames is None:
            raise RuntimeError("no frame was put")
        return self._frames
