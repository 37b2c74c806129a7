"""How large the frames of a clip are: under a bound of pixels, and under one on what all frames cost together."""

from __future__ import annotations

import math
from dataclasses import dataclass


def fit_size(height: int, width: int, max_pixels: int, multiple: int = 2) -> tuple[int, int]:
    """The largest size of at most `max_pixels` that keeps the aspect ratio and does not enlarge.

    Args:
        height: Height of the source in pixels.
        width: Width of the source in pixels.
        max_pixels: Most pixels (height times width) of the result.
        multiple: Both sides of the result are multiples of this, except that a side shorter than it stays as it is.

    Returns:
        Height and width.

    Raises:
        ValueError: An argument is below 1.
    """
    if min(height, width, max_pixels, multiple) < 1:
        raise ValueError(f"sizes must be at least 1: {height=}, {width=}, {max_pixels=}, {multiple=}")
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    short, long = sorted((height, width))
    fitted_short = _round_down(short * scale, multiple, short)
    # A short side that cannot shrink further leaves less to the long one than the aspect ratio asks for.
    fitted_long = _round_down(min(long * scale, max_pixels / fitted_short), multiple, long)
    return (fitted_short, fitted_long) if height <= width else (fitted_long, fitted_short)


def _round_down(value: float, multiple: int, original: int) -> int:
    """A multiple not above `value`, but at least one multiple or the original if that is less."""
    return max(int(value) // multiple * multiple, min(multiple, original))


@dataclass(frozen=True)
class CellBudget:
    """Most cells of a clip. Frames are made smaller first, down to one cell each; only then are there fewer of them.

    Args:
        cells: Most cells of all frames together.
        side: Pixels of a cell's side.
        group: Frames that share their cells; an incomplete last group counts as a whole one.
    """

    cells: int
    side: int
    group: int = 1

    @property
    def max_frames(self) -> int:
        """Most frames there may be: with one cell for each group of them."""
        return self.cells * self.group

    def frame_size(self, num_frames: int, height: int, width: int, max_pixels: int | None = None) -> tuple[int, int]:
        """Height and width of each of `num_frames` frames: whole cells, within the budget.

        A side shorter than a cell is enlarged to one.

        Args:
            num_frames: Frames of the clip.
            height: Height of the source in pixels.
            width: Width of the source in pixels.
            max_pixels: Most pixels of a frame beside the budget; None for no other bound.

        Raises:
            ValueError: There are more than `max_frames` frames.
        """
        cells = self.cells // math.ceil(num_frames / self.group)
        if cells < 1:
            raise ValueError(f"{num_frames} frames do not go into {self.cells} cells; {self.max_frames} are the most")
        pixels = cells * self.side**2
        pixels = pixels if max_pixels is None else min(pixels, max_pixels)
        return fit_size(max(height, self.side), max(width, self.side), pixels, self.side)
