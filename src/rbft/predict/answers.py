"""What a classifier says of a video: the answer, when it is none, and the files that answers are written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft.data.own_tables import ANSWERS
from rbft.errors import ConfigError
from rbft.evaluation.thresholds import Threshold
from rbft.files import archive, write_csv, write_jsonl

TOP = 5
"""Of the likeliest classes of an answer."""


@dataclass(frozen=True)
class Moment:
    """The answer about a part of a video.

    Args:
        start: start of the part, in seconds.
        end: end of the part, in seconds.
        predicted: The likeliest class; None where the part cannot be read.
        probability: probability of that class.
        top: The likeliest classes with their probabilities, at most five.
        rationale: The model's own words, where it was asked for them.
        error: Why the part cannot be read.
    """

    start: float
    end: float
    predicted: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    rationale: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As an entry of a timeline; what does not apply is left out."""
        return {"start": self.start, "end": self.end} | _row(self)


@dataclass(frozen=True)
class Answer:
    """What the classifier says of a video.

    Args:
        video: path of the video, as it was given.
        predicted: The class; None for a video that cannot be read, and where the classifier abstains.
        probability: probability of that class, or of the likeliest if it abstains; calibrated if the run is.
        top: The likeliest classes with their probabilities, at most five.
        rationale: The model's own words, where the run answers after its own rationale or they were asked for.
        error: Why the video, or a part of it, cannot be read.
        abstained: whether no class was confident enough.
        is_calibrated: whether the probabilities are calibrated.
        raw: Probabilities as the model scores them, in the order of the labels.
        calibrated: probabilities with the run's temperature; empty where it has none.
        timeline: The answers about parts of the video, where it was looked at in windows.
        at_least: whether the probabilities of the likeliest classes are lower bounds, and those of others upper ones.
    """

    video: str
    predicted: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    rationale: str | None = None
    error: str | None = None
    abstained: bool = False
    is_calibrated: bool = False
    raw: tuple[float, ...] = ()
    calibrated: tuple[float, ...] = ()
    timeline: tuple[Moment, ...] = ()
    at_least: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a line of the output; what does not apply is left out."""
        row = {"video": self.video} | _row(self)
        row |= {"calibrated": self.is_calibrated} if self.raw else {}
        row |= {"abstained": True} if self.abstained else {}
        row |= {"at_least": True} if self.at_least else {}
        return row | ({"timeline": [moment.to_json() for moment in self.timeline]} if self.timeline else {})


def _row(said: Answer | Moment) -> dict[str, Any]:
    row: dict[str, Any] = {"predicted": said.predicted, "probability": said.probability}
    row |= {"top": [list(pair) for pair in said.top]} if said.top else {}
    row |= {"rationale": said.rationale} if said.rationale is not None else {}
    return row | ({"error": said.error} if said.error is not None else {})


@dataclass(frozen=True)
class Rule:
    """When a class is said.

    Args:
        min_confidence: Below this probability of the class none is said; None: one always is.
        thresholds: classes that are answered only from a probability on, and then always; of several the likeliest.
    """

    min_confidence: float | None = None
    thresholds: tuple[Threshold, ...] = ()

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 < self.min_confidence < 1:
            raise ConfigError(f"--min-confidence {self.min_confidence:g}: must lie above 0 and below 1.")

    def decide(self, chances: Mapping[str, float]) -> tuple[str | None, float]:
        """The class that is said, None if none is, with its probability or that of the likeliest.

        Args:
            chances: Probability of each class.
        """
        least = {threshold.name: threshold.probability for threshold in self.thresholds}
        said = [name for name, probability in least.items() if chances[name] >= probability]
        free = said or [name for name in chances if name not in least]
        if not free:
            return None, max(chances.values())
        name = max(free, key=chances.__getitem__)
        if self.min_confidence is not None and chances[name] < self.min_confidence:
            return None, max(chances.values())
        return name, chances[name]


def likeliest(names: Sequence[str], chances: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """The likeliest classes with their probabilities, at most five."""
    return tuple(sorted(zip(names, chances, strict=True), key=lambda pair: -pair[1])[:TOP])


def write_answers(path: Path, answers: Sequence[Answer]) -> Path | None:
    """Write answers as `.jsonl` or `.csv`, which has no timeline.

    Returns:
        The new name of a file that stood there.
    """
    old = archive(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, [answer.to_json() for answer in answers])
        return old
    rows = [[*ANSWERS]]
    rows += [
        [
            a.video,
            a.predicted or "",
            "" if a.probability is None else f"{a.probability:.6g}",
            "true" if a.abstained else "",
            a.rationale or "",
            a.error or "",
        ]
        for a in answers
    ]
    write_csv(path, rows)
    return old
