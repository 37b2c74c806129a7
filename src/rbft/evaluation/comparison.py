"""Runs grouped by their common settings, each group compared with a baseline; used by sweeps and reports."""

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
        point: settings that distinguish it from the other runs.
        accuracy: test accuracy; None while the run is not finished.
        predictions: path of its predictions.jsonl, which need not exist.
        validation: path of the predictions of its validation videos; None where it is not known.
        labels: its classes, in the order of the probabilities; empty where they are not known.
        chosen: settings that its validation videos chose, which therefore do not distinguish it.
        chance: accuracy of guessing; None where it is not known.
        majority: accuracy of always answering the class most frequent in training; None where it is not known.
        labelled: number of labelled videos that it used, for training and for choosing; None where it is not known.
    """

    point: Point
    accuracy: float | None
    predictions: Path
    validation: Path | None = None
    labels: tuple[str, ...] = ()
    chosen: Point = field(default_factory=dict)
    chance: float | None = None
    majority: float | None = None
    labelled: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A method beside the baseline, over the seeds and draws that both have.

    Args:
        difference: paired difference in accuracy.
        p: p-value of the permutation test, corrected for all comparisons made together (Holm); None for one pair.
        detectable: smallest difference that so many pairs of this spread show 4 times in 5; None for one pair.
        tests: McNemar's test of each pair whose predictions exist.
        cautions: what a reader has to know before concluding anything.
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
        point: distinguishing settings that the runs share.
        accuracy: mean accuracy of the finished runs; None if no run is finished.
        runs: number of runs that there should be.
        comparison: comparison with the baseline; None for the baseline itself, and where no pair is finished.
        chosen: number of runs for each setting that validation videos chose.
        chance: mean accuracy of guessing; None where a finished run does not record it.
        majority: mean accuracy of always answering the class most frequent in training; None likewise.
        labelled: mean number of labelled videos that a run used, for training and for choosing; None likewise.
    """

    point: Point
    accuracy: MeanInterval | None
    runs: int
    comparison: Comparison | None
    chosen: dict[str, int] = field(default_factory=dict)
    chance: float | None = None
    majority: float | None = None
    labelled: float | None = None

    @property
    def labelled_words(self) -> str:
        """The labelled videos, for people; a dash where they are not known."""
        return "-" if self.labelled is None else f"{self.labelled:.1f}".removesuffix(".0")

    @property
    def chosen_words(self) -> str:
        """What validation videos chose, for people; empty where nothing was to be chosen."""
        counts = sorted(self.chosen.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{words} in {count} of {self.runs}" for words, count in counts)


def interval_words(interval: MeanInterval | None, *, points: bool = False) -> str:
    """An interval for people: of shares in percent, of differences in points; a dash where there is none.

    Student's t knows no bounds, but no accuracy is below 0 or above 100%.
    """
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    if points:
        return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    return f"{max(0.0, interval.low):.1%} to {min(1.0, interval.high):.1%}"


def point_words(point: Mapping[str, Any]) -> str:
    """A point for people; the method goes without its key."""
    return " ".join(str(value) if key == "method" else f"{key}={json.dumps(value)}" for key, value in point.items())


def repeats_words(replicates: Sequence[str], *, one: bool = False) -> str:
    """The keys that repeat a run, for people: `seeds and draws`, or `seed and draw` where `one` is asked for."""
    names = {"seed_everything": "seed", "data.draw": "draw"}
    words = [f"{names[key]}{'' if one else 's'}" if key in names else key for key in sorted(replicates, reverse=True)]
    return " and ".join(words)


def shared(point: Point, replicates: Sequence[str]) -> Point:
    """What a run has in common with those that only repeat it."""
    return {key: value for key, value in point.items() if key not in replicates}


def key_of(point: Point) -> str:
    """A point as a key of a dictionary."""
    return json.dumps(point, sort_keys=True)


def compare(members: Sequence[Member], baseline: Mapping[str, Any] | None, replicates: Sequence[str]) -> list[Group]:
    """Group runs and compare each group with the baseline's at the same other settings.

    Args:
        members: the runs.
        baseline: keys and values that replace a group's own to find what it is compared with; None for none.
        replicates: keys that repeat a run.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(key_of(shared(member.point, replicates)), []).append(member)
    compared: dict[str, tuple[PairedDifference, list[float], tuple[McNemar, ...]]] = {}
    for key, group in groups.items():
        if (pairs := _pairs(group, groups, baseline, replicates)) is not None:
            compared[key] = pairs
    # a single pair cannot be tested, and would only make the others pay for one more test
    tested = {key: pair[0].p_permutation for key, pair in compared.items() if len(pair[1]) > 1}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    compared_groups = []
    for key, group in groups.items():
        finished = [member for member in group if member.accuracy is not None]
        figures = [member.accuracy for member in group if member.accuracy is not None]
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
        compared_groups.append(
            Group(
                shared(group[0].point, replicates),
                mean_interval(figures) if figures else None,
                len(group),
                comparison,
                dict(Counter(point_words(member.chosen) for member in group if member.chosen)),
                _mean([member.chance for member in finished]),
                _mean([member.majority for member in finished]),
                _mean([member.labelled for member in finished]),
            )
        )
    return compared_groups


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def baseline_point(point: Point, baseline: Mapping[str, Any] | None, known: Sequence[str]) -> Point | None:
    """The shared point that a group is compared with; None for the baseline itself and where there is no such group.

    Args:
        point: shared point of the group.
        baseline: keys and values that replace its own.
        known: `key_of` of the shared points of all groups.
    """
    if baseline is None:
        return None
    other = {**point, **baseline}
    # equal settings are told apart by their variant, which a baseline need not have
    for candidate in (other, {key: value for key, value in other.items() if key != "variant" or key in baseline}):
        if key_of(candidate) in known:
            return None if candidate == point else candidate
    return None


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

    base_runs = {repeats(member): member for member in groups[key_of(other)]}
    pairs = []
    for member in members:
        pair = base_runs.get(repeats(member))
        if pair is not None and member.accuracy is not None and pair.accuracy is not None:
            pairs.append((member, pair, member.accuracy, pair.accuracy))
    if not pairs:
        return None
    accuracies, baselines = [pair[2] for pair in pairs], [pair[3] for pair in pairs]
    tests = tuple(
        mcnemar_files(run.predictions, their.predictions)
        for run, their, _, _ in pairs
        if run.predictions.is_file() and their.predictions.is_file()
    )
    changes = [accuracy - their for accuracy, their in zip(accuracies, baselines, strict=True)]
    return paired_difference(accuracies, baselines), changes, tests
