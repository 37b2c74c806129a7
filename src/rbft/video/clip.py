"""What the rest of the package gets of a video: a clip of sampled frames with its times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rbft.errors import VideoError
from rbft.video.budget import size_rule
from rbft.video.container import DEFAULT_LIMITS, Limits
from rbft.video.frame_index import FrameIndex
from rbft.video.reader import FrameMissingError, open_reader
from rbft.video.sampling import FrameSampling

if TYPE_CHECKING:
    from rbft.video.budget import CellBudget
    from rbft.video.convert import SizeRule


@dataclass(frozen=True, eq=False)
class Clip:
    """Sampled frames of one video.

    Args:
        frames: (T, C, H, W) uint8 RGB.
        timestamps: T times in seconds since the first displayed frame of the video, ascending.
        indices: T frame indices of the video in order of display, ascending; repeated if the video is short.
        fps: Average frames per second of the video.
        duration: Seconds the video lasts.
        total_num_frames: Frames of the video. Where a part of a video was sampled, it and the three others count
            from the start of that part, as if it were a video of its own.
        path: The video, as it was named.
    """

    frames: Tensor
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    fps: float
    duration: float
    total_num_frames: int
    path: str

    def metadata(self) -> dict[str, int | float | list[int]]:
        """The fields of `transformers.video_utils.VideoMetadata` that video processors read."""
        return {
            "total_num_frames": self.total_num_frames,
            "fps": self.fps,
            "duration": self.duration,
            "frames_indices": list(self.indices),
        }


def read_clip(
    path: str | Path,
    sampling: FrameSampling,
    max_pixels: int | None = None,
    size: tuple[int, int] | None = None,
    root: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
    rng: np.random.Generator | None = None,
    multiple: int = 2,
    budget: CellBudget | None = None,
) -> Clip:
    """Reads a clip from a video that is there as a whole.

    Args:
        path: The video, absolute or relative to `root`.
        sampling: Which frames.
        max_pixels: Most pixels of a frame, larger ones are scaled down by :func:`fit_size`; None for no bound.
        size: Height and width to scale to, instead of `max_pixels`.
        root: The folder the file has to lie in; None for no such bound.
        limits: What the file may cost.
        rng: Source of chance for random sampling.
        multiple: What both sides of a frame scaled by `max_pixels` are multiples of.
        budget: Bound on all frames together, beside `max_pixels`; its cells take the place of `multiple`.

    Raises:
        VideoError: The file is refused, is cut short, or a sampled frame is damaged or cannot be converted.
        ValueError: `size` is given beside `max_pixels` or `budget`, or the budget has no room for so many frames.
    """
    if size is not None and (max_pixels is not None or budget is not None):
        raise ValueError("give size, or max_pixels and budget, not both")

    def rule(num_frames: int) -> tuple[int, int] | SizeRule | None:
        return size or size_rule(num_frames, max_pixels, multiple, budget)

    with open_reader(path, root, limits, often=sampling.part is not None) as reader:
        index = reader.index
        if index.loss:
            raise VideoError(path, index.loss)
        if sampling.fps is not None and not index.fps:
            raise VideoError(path, "does not say its frame rate, which sampling by fps needs; set num_frames")
        first, end = _span(path, index, sampling)
        try:
            indices = [first + number for number in sampling.indices(end - first, index.fps, rng)]
            decoded = reader.read(indices, rule(len(indices)))
        except FrameMissingError as short:
            # Without times the index counts packets, and those that say "nothing changed" display no frame.
            if index.timed or short.num_frames <= first:
                raise
            end = min(end, short.num_frames)
            indices = [first + number for number in sampling.indices(end - first, index.fps, rng)]
            decoded = reader.read(indices, rule(len(indices)))
        begin, duration = 0.0, index.duration
        if sampling.part is not None:
            begin, duration = index.timestamp(first), min(sampling.part[1], index.duration) - sampling.part[0]
    return Clip(
        frames=decoded.frames,
        timestamps=tuple(time - begin for time in decoded.timestamps),
        indices=tuple(index - first for index in decoded.indices),
        fps=index.fps,
        duration=duration,
        total_num_frames=end - first,
        path=str(path),
    )


def _span(path: str | Path, index: FrameIndex, sampling: FrameSampling) -> tuple[int, int]:
    """The frames to sample from: the first, and behind the last."""
    if sampling.part is None:
        return 0, index.num_frames
    try:
        first, end = index.span(*sampling.part)
    except ValueError as error:
        raise VideoError(path, str(error)) from error
    if first == end:
        raise VideoError(path, "shows no frame between {:g} and {:g} s".format(*sampling.part))
    return first, end
