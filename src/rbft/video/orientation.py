"""Which way up a decoded picture is shown."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, cast

import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

_NUMBERS = struct.Struct("=9i")


def _unnamed(kinds: type[Type], value: Any) -> Type:
    kind = object.__new__(kinds)
    kind._name_, kind._value_ = f"KIND_{value}", value
    return kind


# FFmpeg 8 hands on kinds of side data that PyAV 18.1 has no name for, such as the EXIF of a photo or a camera's MJPEG;
# of a frame that has one it then gives none at all (mended upstream in PyAV-Org/PyAV#2392).
Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment,method-assign]


class Orientation(NamedTuple):
    """One of the eight ways to lay out a picture: rows and columns are swapped first, then their order is turned.

    Args:
        transposed: whether rows become columns.
        flipped_x: whether left and right are swapped after that.
        flipped_y: whether top and bottom are swapped after that.
    """

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """What the display matrix of a frame says; the media library hands it on and does not apply it.

        The matrix (ISO/IEC 14496-12, 6.2.2) takes the stored place (x, y) to (ax + cy, bx + dy). Other angles than
        quarter turns count as the nearest of them, and a matrix of zeros as none.
        """
        # not `frame.side_data`, which the frame holds and which holds the frame: pixels would stay in memory until
        # Python looks for cycles
        side_data = SideDataContainer(frame)  # type: ignore[call-arg]
        matrix = cast("Buffer | None", side_data.get("DISPLAYMATRIX"))
        if matrix is None:
            return cls()
        a, b, _, c, d, *_ = _NUMBERS.unpack_from(matrix)
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    @property
    def mirrored(self) -> bool:
        """Whether writing in the picture is stored the wrong way round."""
        return self.transposed ^ self.flipped_x ^ self.flipped_y

    @property
    def rotation(self) -> int:
        """Counter-clockwise degrees (0, 90, 180, 270) by which the picture is turned once it is mirrored, if it is."""
        if self.transposed:
            return 270 if self.flipped_x else 90
        return 180 if self.flipped_y else 0

    def displayed(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as displayed of a picture stored with these; the same the other way round."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """A view (H, W) of a stored picture as it is displayed."""
        upright = pixels.T if self.transposed else pixels
        return upright[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]
