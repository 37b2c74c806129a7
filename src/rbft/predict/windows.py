"""Long videos in windows: where they lie, and how what is said of each becomes one answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rbft.errors import ConfigError
from rbft.evaluation.predictions import probabilities


@dataclass(frozen=True)
class Windows:
    """Parts of a video that are answered one by one, each by as many frames as the run takes of a whole clip.

    Args:
        seconds: Length of a window; that of the clips the run was trained on is a good one.
        stride: Seconds from the start of one to the start of the next; None: `seconds`.
    """

    seconds: float
    stride: float | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--window", self.seconds), ("--stride", self.step)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{flag} {value:g}: must be a number of seconds above 0.")
        if self.step > self.seconds:
            raise ConfigError(
                f"--stride {self.step:g}: longer than the window of {self.seconds:g} s, so that nobody "
                "would look at what lies between two windows."
            )

    @property
    def step(self) -> float:
        """Seconds from one start to the next."""
        return self.seconds if self.stride is None else self.stride

    @property
    def overlapping(self) -> int:
        """How many windows look at one moment."""
        return math.ceil(self.seconds / self.step - 1e-9)

    def spans(self, duration: float) -> list[tuple[float, float]]:
        """Start and end of each window in seconds: all as long as each other, the last one ending with the video.

        Args:
            duration: duration of the video in seconds; a video shorter than a window is one window.
        """
        if duration <= self.seconds:
            return [(0.0, duration)]
        # what is left after the last whole stride is seen by one more window, moved back to end with the video
        count = math.ceil((duration - self.seconds) / self.step - 1e-9)
        starts = [round(number * self.step, 6) for number in range(count)]
        last = round(duration - self.seconds, 6)
        return [*((start, round(start + self.seconds, 6)) for start in starts), (last, duration)]


def merge(windows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Log-probabilities of a video: the mean of its windows' log-probabilities, up to a constant.

    A logarithmic opinion pool (Genest and Zidek, Statistical Science 1986): a class is likely where no window speaks
    against it. Applying a temperature before or after gives the same.

    Args:
        windows: Log-probabilities of the classes, by window.
    """
    return tuple(math.fsum(column) / len(windows) for column in zip(*windows, strict=True))


def alarm(merged: Sequence[float], highest: float, place: int, *, shown: bool = False) -> tuple[float, ...]:
    """Probabilities of a video where one class counts as soon as a single window shows it.

    Of three classes or more one can be the likeliest of a window with less than half of the probability. The rest of it
    could then make another class the likeliest of the video; so where a window shows the class, none stands above it.

    Args:
        merged: Probabilities of the classes, merged over the windows.
        highest: The largest probability of the alarm's class in any window; becomes the video's.
        place: index of that class; the others share the rest in proportion.
        shown: whether it is the likeliest class of some window.
    """
    found, left = {place: highest}, 1 - highest
    most = math.nextafter(highest, 0.0) if shown else 1.0
    others = sorted((number for number in range(len(merged)) if number != place), key=lambda number: -merged[number])
    while others:
        rest = math.fsum(merged[number] for number in others)
        share = max(0.0, left) / rest if rest > 0 else 0.0
        if merged[others[0]] * share <= most:
            break
        # what the likeliest may not have goes to the others
        found[others.pop(0)] = most
        left -= most
    return tuple(found[number] if number in found else chance * share for number, chance in enumerate(merged))


def log_probabilities(scores: Sequence[float]) -> tuple[float, ...]:
    """Of the classes, from their scores; no class is impossible, so that one window alone cannot rule it out."""
    return tuple(math.log(max(chance, 1e-300)) for chance in probabilities(scores))
