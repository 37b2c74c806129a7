"""What a clip may cost, and what it does: bounds of its frames, and its tokens."""

from __future__ import annotations

from typing import NamedTuple

from rbft.video.budget import CellBudget


class FrameBound(NamedTuple):
    """Bounds of decoded frames.

    Args:
        max_pixels: Most pixels of a frame; None for no bound.
        multiple: What both sides are multiples of.
        budget: Bound on all frames of a clip together; None for no such bound.
        max_frames: Most frames of a clip; None for no bound.
    """

    max_pixels: int | None
    multiple: int
    budget: CellBudget | None = None
    max_frames: int | None = None

    @property
    def sized(self) -> bool:
        """Whether frames come in a size that was chosen here."""
        return self.max_pixels is not None or self.budget is not None


class ClipCost(NamedTuple):
    """What a clip costs the model.

    Args:
        visual_tokens: Placeholders of visual features in the prompt.
        text_tokens: All other tokens of the prompt.
        pixel_values: Numbers that the vision tower is fed.
    """

    visual_tokens: int
    text_tokens: int
    pixel_values: int
