"""A bound on what all frames of a clip cost together, for models that cut frames into square cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rbft.video.clip import fit_size


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
