"""A bound on what all frames of a clip cost together, for models that cut frames into square cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rbft.video.frame_size import fit_size

if TYPE_CHECKING:
    from rbft.video.convert import SizeRule


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


def size_rule(num_frames: int, max_pixels: int | None, multiple: int, budget: CellBudget | None) -> SizeRule | None:
    """How large the frames of a clip are, by their source; None for as large as that.

    Args:
        num_frames: Frames of the clip.
        max_pixels: Most pixels of a frame; None for no bound.
        multiple: What both sides are multiples of, without a budget.
        budget: Bound on all frames together; None for none.
    """
    if budget is not None:
        return partial(budget.frame_size, num_frames, max_pixels=max_pixels)
    return None if max_pixels is None else partial(fit_size, max_pixels=max_pixels, multiple=multiple)
