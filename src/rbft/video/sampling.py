"""Which frames of a video become a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from rbft.errors import ConfigError


@dataclass(frozen=True)
class FrameSampling:
    """One frame from each of equal segments of the video (temporal segment networks, Wang et al., ECCV 2016).

    Args:
        num_frames: Frames of every clip; a shorter video repeats frames. Either this or `fps` is set.
        fps: Frames per second of video, at least one frame in all and never more than the video has.
        max_frames: Most frames that `fps` may give.
        mode: "uniform" takes the centre of each segment, "random" any frame of each segment (for training).
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

    def indices(self, num_available: int, source_fps: float, rng: np.random.Generator | None = None) -> list[int]:
        """Chooses frames.

        Args:
            num_available: Frames of the video, or of the part that is sampled.
            source_fps: Its average frames per second; used with `fps` only.
            rng: Source of chance for mode "random".

        Returns:
            Frame indices, ascending, within 0 .. num_available - 1.

        Raises:
            ValueError: The video has no frames, its rate is needed and unknown, or the generator is missing.
        """
        if num_available < 1:
            raise ValueError(f"num_available must be at least 1, not {num_available}")
        count = self.count(num_available, source_fps)
        if self.mode == "uniform":
            return [(2 * i + 1) * num_available // (2 * count) for i in range(count)]
        if rng is None:
            raise ValueError('mode "random" needs a random generator (rng)')
        starts = [i * num_available // count for i in range(count + 1)]
        return [int(rng.integers(lo, max(hi, lo + 1))) for lo, hi in pairwise(starts)]

    def count(self, num_available: int, source_fps: float) -> int:
        """Frames of a clip; the arguments and errors are those of `indices`."""
        if self.num_frames is not None:
            return self.num_frames
        if not source_fps > 0:
            raise ValueError("sampling by fps needs the frame rate of the video, which is unknown")
        wanted = round(num_available / source_fps * (self.fps or 0))
        return max(1, min(wanted, num_available, self.max_frames))
