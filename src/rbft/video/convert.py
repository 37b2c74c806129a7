"""From decoded frames to RGB: colour, size and orientation in one pass over the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from rbft.errors import VideoError
from rbft.video.container import MEDIA_ERRORS, brief
from rbft.video.orientation import Orientation

# Height and width of the result for a displayed height and width.
SizeRule = Callable[[int, int], tuple[int, int]]

_FILTER = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_PLANE_OF_CHANNEL = (2, 0, 1)  # the planes of gbrp are green, blue, red
# AVColorSpace values. The constant-luminance variants cannot be converted exactly by the scaler, which refuses them;
# phones tag ordinary BT.2020 that way, and the plain BT.2020 matrix shows such clips as players do.
_NEAREST_COLOR_SPACE = {10: 9, 13: 12}


class RGBConverter:
    """Turns decoded frames into (C, H, W) uint8 RGB of one common size.

    Transparency is dropped, non-square pixels stay as they are stored, and the brightness curves of HDR are not mapped
    to those of ordinary screens.

    Args:
        path: The video, for messages.
        size: Height and width of the results as displayed, or a rule that gives them for the displayed height and
            width of the first frame; None keeps the size of the first frame.
    """

    def __init__(self, path: str, size: tuple[int, int] | SizeRule | None) -> None:
        self._path = path
        self._rule = size
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def size_for(self, frame: VideoFrame) -> tuple[int, int]:
        """Height and width of the results, settled by the first frame."""
        if self._size is None:
            height, width = Orientation.of(frame).displayed(frame.height, frame.width)
            rule = self._rule
            self._size = (height, width) if rule is None else rule(height, width) if callable(rule) else rule
        return self._size

    def write(self, frame: VideoFrame, out: np.ndarray) -> None:
        """Converts one frame.

        Args:
            frame: The decoded frame, of any pixel format and size.
            out: uint8 array (3, H, W) of the size given by :meth:`size_for`, which is filled.

        Raises:
            VideoError: The scaler does not take the frame's colours.
        """
        orientation = Orientation.of(frame)
        height, width = orientation.displayed(*self.size_for(frame))
        frame.colorspace = _NEAREST_COLOR_SPACE.get(frame.colorspace, frame.colorspace)
        try:
            rgb = self._reformatter.reformat(
                frame, width=width, height=height, format="gbrp", interpolation=_FILTER, threads=1
            )
        except MEDIA_ERRORS as error:
            raise VideoError(
                self._path,
                f"its colours cannot be converted to RGB (pixel format {frame.format.name}, colour space "
                f"{frame.colorspace}): {brief(error)}",
            ) from error
        planes = rgb.planes  # made anew every time they are asked for
        for channel, index in enumerate(_PLANE_OF_CHANNEL):
            plane = planes[index]
            pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, :width]
            out[channel] = orientation.apply(pixels)


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
