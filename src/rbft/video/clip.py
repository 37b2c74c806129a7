"""What the rest of the package gets of a video: a clip of sampled frames with its times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from rbft.errors import VideoError
from rbft.video.clip_control import controlled_frames
from rbft.video.clip_spec import ClipControl, ClipSpec
from rbft.video.frame_index import FrameIndex
from rbft.video.reader import FrameMissingError, open_reader
from rbft.video.sampling import FrameSampling

_CLOCK = 1000.0  # ticks a second


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
        steady: whether frames of the video come at one rate, so that their numbers tell their times.
    """

    frames: Tensor
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]
    fps: float
    duration: float
    total_num_frames: int
    path: str
    steady: bool = True

    def metadata(self) -> dict[str, int | float | list[int]]:
        """The fields of `transformers.video_utils.VideoMetadata` that video processors read.

        They take a frame's number over the rate for its time. Where that is not so they get milliseconds in the
        place of numbers, and a thousand of them a second.
        """
        if not self.steady:
            return {
                "total_num_frames": max(1, round(self.duration * _CLOCK)),
                "fps": _CLOCK,
                "duration": self.duration,
                "frames_indices": [round(time * _CLOCK) for time in self.timestamps],
            }
        return {
            "total_num_frames": self.total_num_frames,
            "fps": self.fps,
            "duration": self.duration,
            "frames_indices": list(self.indices),
        }

    def under(self, control: ClipControl) -> Clip:
        """The same with what a control takes from it; times and numbers of its frames stay as they are."""
        return self if control == "none" else replace(self, frames=controlled_frames(self.frames, control))


def read_clip(
    path: str | Path,
    spec: ClipSpec,
    root: Path | None = None,
    rng: np.random.Generator | None = None,
) -> Clip:
    """Reads a clip from a video that is there as a whole, or from a part of one that is.

    Args:
        path: the video, absolute or relative to `root`.
        spec: which frames, how large, what is taken from them, and what the file may cost.
        root: the folder the file has to lie in; None for no such bound.
        rng: source of chance for random sampling.

    Raises:
        VideoError: The file is refused, is cut short, or a sampled frame is damaged or cannot be converted.
        ValueError: The budget has no room for so many frames.
    """
    sampling = spec.sampling
    with open_reader(path, root, spec.limits, often=sampling.part is not None) as reader:
        index = reader.index
        # a part that ends before something is missing is as whole as if it had been cut out
        if index.loss and (sampling.part is None or sampling.part[1] > index.intact + 1e-6):
            raise VideoError(path, index.loss)
        if sampling.fps is not None and not index.fps:
            raise VideoError(path, "does not say its frame rate, which sampling by fps needs; set num_frames")
        first, end = _span(path, index, sampling)
        timeline = index.timeline(first, end, sampling.part)
        try:
            indices = [first + number for number in sampling.indices(timeline, rng)]
            decoded = reader.read(indices, partial(spec.frame_size, len(indices)))
        except FrameMissingError as short:
            # Without times the index counts packets, and those that say "nothing changed" display no frame.
            if index.timed or short.num_frames <= first:
                raise
            end = min(end, short.num_frames)
            indices = [first + number for number in sampling.indices(index.timeline(first, end, sampling.part), rng)]
            decoded = reader.read(indices, partial(spec.frame_size, len(indices)))
        begin, duration = 0.0, index.duration
        if sampling.part is not None:
            begin = index.timestamp(first) if index.steady else sampling.part[0]
            duration = min(sampling.part[1], index.duration) - sampling.part[0]
    clip = Clip(
        frames=decoded.frames,
        timestamps=tuple(max(0.0, time - begin) for time in decoded.timestamps),
        indices=tuple(index - first for index in decoded.indices),
        fps=index.fps,
        duration=duration,
        total_num_frames=end - first,
        path=str(path),
        steady=index.steady,
    )
    return clip.under(spec.control)


def _span(path: str | Path, index: FrameIndex, sampling: FrameSampling) -> tuple[int, int]:
    """The frames to sample from: the first, and after the last."""
    if sampling.part is None:
        return 0, index.num_frames
    try:
        first, end = index.span(*sampling.part)
    except ValueError as error:
        raise VideoError(path, str(error)) from error
    if first == end:
        raise VideoError(path, "shows no frame between {:g} and {:g} s".format(*sampling.part))
    return first, end
