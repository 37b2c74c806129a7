"""mp4 files whose track header says how the stored picture is to be shown, as cameras write it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from tests.support.videos import write_video

EIGHT = {
    "as stored": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "upside down and mirrored": (1, 0, 0, -1),
    "turned by 180": (-1, 0, 0, -1),
    "turned clockwise": (0, 1, -1, 0),
    "turned counter-clockwise": (0, -1, 1, 0),
    "rows as columns": (0, 1, 1, 0),
    "rows as columns, turned by 180": (0, -1, -1, 0),
}
"""a, b, c, d of ISO/IEC 14496-12, 6.2.2: the stored place (x, y) is shown at (ax + cy, bx + dy)."""

_CONTAINERS = (b"moov", b"trak")
_MATRIX = 40  # bytes from the beginning of a track header's content, of version 0
_ONE = 1 << 16  # fixed point


def four_colours(num_frames: int = 12, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames (T, H, W, 3) with a colour in each quarter and a bright bar that walks right: every turn shows."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    middle, centre = height // 2, width // 2
    frames[:, :middle, :centre], frames[:, :middle, centre:] = (200, 40, 40), (40, 180, 60)
    frames[:, middle:, :centre], frames[:, middle:, centre:] = (40, 60, 200), (200, 190, 40)
    for number, frame in enumerate(frames):
        left = number * (width - 8) // max(1, num_frames - 1)
        frame[middle - 4 : middle + 4, left : left + 8] = 245
    return frames


def write_oriented(path: Path, matrix: tuple[int, int, int, int], frames: np.ndarray | None = None) -> Path:
    """An mp4 of frames that are stored as given and shown as the matrix says.

    Args:
        path: where to.
        matrix: a, b, c, d, see `EIGHT`.
        frames: (T, H, W, 3) uint8; None for `four_colours`.
    """
    frames = four_colours() if frames is None else frames
    write_video(path, frames, codec_options={"crf": "8", "preset": "veryfast"})
    set_matrix(path, matrix)
    return path


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write another display matrix into the header of an mp4."""
    a, b, c, d = (value * _ONE for value in matrix)
    content = bytearray(path.read_bytes())
    struct.pack_into(">9i", content, _track_header(content) + _MATRIX, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def shown(stored: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """A stored picture (H, W, C) as it is shown, place by place."""
    a, b, c, d = matrix
    height, width = stored.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    to_x, to_y = a * columns + c * rows, b * columns + d * rows
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    picture = np.zeros((to_y.max() + 1, to_x.max() + 1, stored.shape[2]), stored.dtype)
    picture[to_y, to_x] = stored
    return picture


def _track_header(content: bytearray) -> int:
    """Where the content of the first track header begins."""
    place, end = 0, len(content)
    while place < end:
        size, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"tkhd":
            return place + 8
        place += 8 if kind in _CONTAINERS else size
    raise ValueError("no track header")
