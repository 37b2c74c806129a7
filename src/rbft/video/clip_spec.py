"""How a stage reads its clips: which frames, how large, and what is taken from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from rbft.video.budget import CellBudget, fit_size
from rbft.video.container import DEFAULT_LIMITS, PART_LIMITS, Limits
from rbft.video.sampling import FrameSampling, Timeline

ClipControl = Literal["none", "blank", "reversed", "shuffled", "dropped", "blurred"]


class ClipShape(NamedTuple):
    """Frames of a clip, and height and width of each in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class ClipSpec:
    """What a clip is of any video; `rbft.vlm.processing.ClipProcessor.clip_spec` makes the one that suits a model.

    Args:
        sampling: which frames.
        max_pixels: most pixels of a frame; None for no bound.
        multiple: what both sides of a frame scaled by `max_pixels` are multiples of.
        budget: bound on all frames together, beside `max_pixels`; its cells take the place of `multiple`.
        control: what is taken from the clip once it is read.
        limits: what a video may cost.
    """

    sampling: FrameSampling
    max_pixels: int | None = None
    multiple: int = 2
    budget: CellBudget | None = None
    control: ClipControl = "none"
    limits: Limits = DEFAULT_LIMITS

    @property
    def sized(self) -> bool:
        """Whether frames come in a size that is chosen here; else they are as large as their source."""
        return self.max_pixels is not None or self.budget is not None

    def frame_size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of each of `num_frames` frames whose source has this height and width, in pixels.

        Raises:
            ValueError: There are more frames than the budget has room for.
        """
        if self.budget is not None:
            return self.budget.frame_size(num_frames, height, width, self.max_pixels)
        return (height, width) if self.max_pixels is None else fit_size(height, width, self.max_pixels, self.multiple)

    def shape(self, timeline: Timeline, height: int, width: int) -> ClipShape:
        """The shape of the clip of a readable video, known without decoding.

        Args:
            timeline: of the video; when each frame appears does not matter.
            height: of the video as displayed, in pixels.
            width: of the video as displayed, in pixels.
        """
        frames = self.sampling.count(timeline)
        return ClipShape(frames, *self.frame_size(frames, height, width))

    def of_part(self, part: tuple[float, float] | None) -> ClipSpec:
        """The same for a part of a video, which may be long: start and end in seconds; None for all of it."""
        if part is None:
            return self
        return replace(self, sampling=replace(self.sampling, part=part), limits=PART_LIMITS)

    def with_mode(self, mode: Literal["uniform", "random"]) -> ClipSpec:
        """The same with frames chosen in another way, see `FrameSampling`."""
        return replace(self, sampling=replace(self.sampling, mode=mode))
