"""Which frames of a video become a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import numpy as np

from rbft.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the frames that are sampled from are shown.

    Args:
        num_frames: how many there are.
        seconds: how long they are shown together; 0.0 when unknown.
        starts: seconds (num_frames,) at which each appears, ascending from 0.0 or later; None where they come at one
            rate, so that their numbers tell their times.
    """

    num_frames: int
    seconds: float
    starts: np.ndarray | None = None

    def shown(self, share: Fraction | float) -> int:
        """Number of the frame that is shown when a share of the time, 0 to 1, has passed."""
        if self.starts is None:
            return int(share * self.num_frames)
        # a frame is at its time, however the seconds were rounded
        return max(0, int(np.searchsorted(self.starts, share * self.seconds + 1e-9, side="right")) - 1)


@dataclass(frozen=True)
class FrameSampling:
    """A frame from each of equal segments of time (temporal segment networks, Wang et al., ECCV 2016).

    Args:
        num_frames: Frames of every clip; a shorter video, or one that stands still, repeats frames. Either this or
            `fps` is set.
        fps: Frames per second of video, at least one frame in all and never more than the video has.
        max_frames: Most frames that `fps` may give.
        mode: "uniform" takes the frame shown in the middle of each segment, "random" any frame of each segment (for
            training).
        part: Seconds since the first frame, start and end, of the part of the video that is sampled; None: all of it.

    Raises:
        ConfigError: A value is out of range, or not exactly one of `num_frames` and `fps` is set.
    """

    num_frames: int | None = None
    fps: float | None = None
    max_frames: int = 64
    mode: Literal["uniform", "random"] = "uniform"
    part: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.num_frames is None) == (self.fps is None):
            given = "neither" if self.fps is None else f"num_frames={self.num_frames} and fps={self.fps}"
            raise ConfigError(f"frame sampling: set exactly one of num_frames and fps, not {given}")
        if self.num_frames is not None and self.num_frames < 1:
            raise ConfigError(f"frame sampling: num_frames must be at least 1, not {self.num_frames}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigError(f"frame sampling: fps must be above 0, not {self.fps}")
        if self.max_frames < 1:
            raise ConfigError(f"frame sampling: max_frames must be at least 1, not {self.max_frames}")
        if self.mode not in ("uniform", "random"):
            raise ConfigError(f'frame sampling: mode must be "uniform" or "random", not {self.mode!r}')
        if self.part is not None and not 0 <= self.part[0] < self.part[1]:
            raise ConfigError(f"frame sampling: part must be a start and a later end in seconds, not {self.part}")

    def at_most(self, frames: int | None) -> FrameSampling:
        """The same with no more than so many frames of a clip; None leaves it as it is."""
        if frames is None:
            return self
        if self.num_frames is not None:
            return replace(self, num_frames=min(self.num_frames, frames))
        return replace(self, max_frames=min(self.max_frames, frames))

    def indices(self, timeline: Timeline, rng: np.random.Generator | None = None) -> list[int]:
        """Chooses frames.

        Args:
            timeline: of the video, or of the part that is sampled.
            rng: source of chance for mode "random".

        Returns:
            Frame indices, ascending, within 0 .. num_frames - 1 of the timeline.

        Raises:
            ValueError: There are no frames, how long they last is needed and unknown, or the generator is missing.
        """
        if timeline.num_frames < 1:
            raise ValueError(f"num_frames of the timeline must be at least 1, not {timeline.num_frames}")
        count = self.count(timeline)
        if self.mode == "uniform":
            return [timeline.shown(Fraction(2 * i + 1, 2 * count)) for i in range(count)]
        if rng is None:
            raise ValueError('mode "random" needs a random generator (rng)')
        if timeline.starts is not None:
            return [timeline.shown((i + rng.random()) / count) for i in range(count)]
        edges = [timeline.shown(Fraction(i, count)) for i in range(count + 1)]
        return [int(rng.integers(lo, max(hi, lo + 1))) for lo, hi in pairwise(edges)]

    def count(self, timeline: Timeline) -> int:
        """Frames of a clip; the arguments and errors are those of `indices`."""
        if self.num_frames is not None:
            return self.num_frames
        if not timeline.seconds > 0:
            raise ValueError("sampling by fps needs the frame rate of the video, which is unknown")
        wanted = round(timeline.seconds * (self.fps or 0))
        return max(1, min(wanted, timeline.num_frames, self.max_frames))
