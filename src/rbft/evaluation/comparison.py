"""Runs grouped by what they share, and each group beside a baseline: what a sweep and a report say of methods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rbft.evaluation.statistics import (
    McNemar,
    MeanInterval,
    PairedDifference,
    cautions,
    holm,
    mcnemar_files,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
)

Point = dict[str, Any]
"""Dotted keys of an experiment with their values."""


@dataclass(frozen=True)
class Member:
    """One run as it is compared.

    Args:
        point: What tells it from the others.
        accuracy: Of its test; None while it is not finished.
        predictions: Its predictions.jsonl, which need not be there.
        validation: The same of its validation videos; None where it is not known.
        labels: Its classes, in the order of the probabilities; empty where they are not known.
        chosen: Settings that its validation videos chose, which therefore tell it from no other.
        chance: Accuracy of guessing; None where it is not known.
        majority: Accuracy of always answering the class most frequent in training; None where it is not known.
    """

    point: Point
    accuracy: float | None
    predictions: Path
    validation: Path | None = None
    labels: tuple[str, ...] = ()
    chosen: Point = field(default_factory=dict)
    chance: float | None = None
    majority: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A method beside the baseline, over the seeds and draws that both have.

    Args:
        difference: In accuracy, paired.
        p: Of the permutation test, corrected for all comparisons made together (Holm); None for one pair.
        detectable: Smallest difference that so many pairs of this spread show 4 times in 5; None for one pair.
        tests: McNemar's of each pair whose predictions are there.
        cautions: What a reader has to be told.
    """

    difference: PairedDifference
    p: float | None
    detectable: float | None
    tests: tuple[McNemar, ...]
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed and draw only.

    Args:
        point: What they share of what tells runs apart.
        accuracy: Of the finished ones; None if none is.
        runs: How many there should be.
        comparison: With the baseline; None for the baseline itself, and where no pair is finished.
        chosen: How many of the runs have which settings by the choice of their validation videos.
        chance: Mean accuracy of guessing; None where a finished run does not know it.
        majority: The same of always answering the class most frequent in training.
    """

    point: Point
    accuracy: MeanInterval | None
    runs: int
    comparison: Comparison | None
    chosen: dict[str, int] = field(default_factory=dict)
    chance: float | None = None
    majority: float | None = None

    @property
    def chosen_words(self) -> str:
        """What validation videos chose, for people; empty where nothing was to be chosen."""
        counts = sorted(self.chosen.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{words} in {count} of {self.runs}" for words, count in counts)


def interval_words(interval: MeanInterval | None, *, points: bool = False) -> str:
    """An interval for people: of shares in percent, of differences in points; a dash where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    if points:
        return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    return f"{interval.low:.1%} to {interval.high:.1%}"


def point_words(point: Mapping[str, Any]) -> str:
    """A point for people; the method goes without its key."""
    return " ".join(str(value) if key == "method" else f"{key}={json.dumps(value)}" for key, value in point.items())


def shared(point: Point, replicates: Sequence[str]) -> Point:
    """What a run has in common with those that only repeat it."""
    return {key: value for key, value in point.items() if key not in replicates}


def key_of(point: Point) -> str:
    """A point as a key of a dictionary."""
    return json.dumps(point, sort_keys=True)


def compare(members: Sequence[Member], baseline: Mapping[str, Any] | None, replicates: Sequence[str]) -> list[Group]:
    """Group runs and compare each group with the baseline's at the same other settings.

    Args:
        members: The runs.
        baseline: Keys and values that take the place of a group's own to find what it is compared with; None for none.
        replicates: Keys that repeat a run.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(key_of(shared(member.point, replicates)), []).append(member)
    compared: dict[str, tuple[PairedDifference, list[float], tuple[McNemar, ...]]] = {}
    for key, mine in groups.items():
        if (pairs := _pairs(mine, groups, baseline, replicates)) is not None:
            compared[key] = pairs
    # a single pair cannot be tested, and would only make the others pay for one more test
    tested = {key: pair[0].p_permutation for key, pair in compared.items() if len(pair[1]) > 1}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = []
    for key, mine in groups.items():
        finished = [member for member in mine if member.accuracy is not None]
        figures = [member.accuracy for member in mine if member.accuracy is not None]
        comparison = None
        if key in compared:
            difference, changes, tests = compared[key]
            comparison = Comparison(
                difference,
                corrected.get(key),
                minimal_detectable_difference(changes),
                tests,
                tuple(cautions(len(changes), tests)),
            )
        found.append(
            Group(
                shared(mine[0].point, replicates),
                mean_interval(figures) if figures else None,
                len(mine),
                comparison,
                dict(Counter(point_words(member.chosen) for member in mine if member.chosen)),
                _mean([member.chance for member in finished]),
                _mean([member.majority for member in finished]),
            )
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def baseline_point(point: Point, baseline: Mapping[str, Any] | None, known: Sequence[str]) -> Point | None:
    """The shared point that a group is compared with; None for the baseline itself and where there is no such group.

    Args:
        point: The group's.
        baseline: What takes the place of its own values.
        known: `key_of` of the shared points of all groups.
    """
    if baseline is None:
        return None
    other = {**point, **baseline}
    return None if other == point or key_of(other) not in known else other


def _pairs(
    members: Sequence[Member],
    groups: Mapping[str, Sequence[Member]],
    baseline: Mapping[str, Any] | None,
    replicates: Sequence[str],
) -> tuple[PairedDifference, list[float], tuple[McNemar, ...]] | None:
    """The finished pairs of a group and the baseline at the same other settings."""
    other = baseline_point(shared(members[0].point, replicates), baseline, list(groups))
    if other is None:
        return None

    def repeats(member: Member) -> str:
        return key_of({key: member.point[key] for key in replicates if key in member.point})

    theirs = {repeats(member): member for member in groups[key_of(other)]}
    pairs = []
    for member in members:
        pair = theirs.get(repeats(member))
        if pair is not None and member.accuracy is not None and pair.accuracy is not None:
            pairs.append((member, pair, member.accuracy, pair.accuracy))
    if not pairs:
        return None
    ours, baselines = [pair[2] for pair in pairs], [pair[3] for pair in pairs]
    tests = tuple(
        mcnemar_files(mine.predictions, their.predictions)
        for mine, their, _, _ in pairs
        if mine.predictions.is_file() and their.predictions.is_file()
    )
    changes = [mine - their for mine, their in zip(ours, baselines, strict=True)]
    return paired_difference(ours, baselines), changes, tests
