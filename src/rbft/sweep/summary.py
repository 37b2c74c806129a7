"""What a sweep found: a mean with its interval for each method, and what of it differs from the baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
from rbft.sweep.grid import Point, Sweep
from rbft.sweep.progress import Progress


@dataclass(frozen=True)
class Comparison:
    """A method beside the baseline, over the seeds and draws that both have.

    Args:
        difference: In accuracy, paired.
        p: Of the permutation test, corrected for all comparisons of the sweep (Holm); None for one pair.
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
        point: What they share of the swept keys.
        accuracy: Of the finished ones; None if none is.
        runs: How many there should be.
        comparison: With the baseline; None for the baseline itself, and where no pair is finished.
    """

    point: Point
    accuracy: MeanInterval | None
    runs: int
    comparison: Comparison | None


def summarise(sweep: Sweep, progress: Sequence[Progress]) -> list[Group]:
    """Group the runs of a sweep and compare them with its baseline."""
    groups: dict[str, list[Progress]] = {}
    for one in progress:
        groups.setdefault(_key(_shared(one.run.point, sweep)), []).append(one)
    compared: dict[str, tuple[PairedDifference, list[float], tuple[McNemar, ...]]] = {}
    for key, members in groups.items():
        if (pairs := _pairs(sweep, members, groups)) is not None:
            compared[key] = pairs
    # a single pair cannot be tested, and would only make the others pay for one more test
    tested = {key: pair[0].p_permutation for key, pair in compared.items() if len(pair[1]) > 1}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = []
    for key, members in groups.items():
        figures = [accuracy for one in members if (accuracy := one.accuracy()) is not None]
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
        found.append(Group(_shared(members[0].run.point, sweep), mean_interval(figures) if figures else None,
                           len(members), comparison))  # fmt: skip
    return found


def _shared(point: Point, sweep: Sweep) -> Point:
    return {key: value for key, value in point.items() if key not in sweep.replicates}


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


def _pairs(
    sweep: Sweep, members: Sequence[Progress], groups: dict[str, list[Progress]]
) -> tuple[PairedDifference, list[float], tuple[McNemar, ...]] | None:
    """The finished pairs of a group and the baseline at the same other settings."""
    mine = _shared(members[0].run.point, sweep)
    other = mine | (sweep.baseline or {})
    if sweep.baseline is None or other == mine or _key(other) not in groups:
        return None
    theirs = {_key({k: one.run.point[k] for k in sweep.replicates if k in one.run.point}): one
              for one in groups[_key(other)]}  # fmt: skip
    ours, baseline, tests = [], [], []
    for one in members:
        pair = theirs.get(_key({k: one.run.point[k] for k in sweep.replicates if k in one.run.point}))
        first, second = one.accuracy(), pair.accuracy() if pair is not None else None
        if pair is None or first is None or second is None:
            continue
        ours.append(first)
        baseline.append(second)
        files = [run.folder / "predictions.jsonl" for run in (one.run, pair.run)]
        if all(file.is_file() for file in files):
            tests.append(mcnemar_files(*files))
    if not ours:
        return None
    changes = [a - b for a, b in zip(ours, baseline, strict=True)]
    return paired_difference(ours, baseline), changes, tuple(tests)


def print_summary(sweep: Sweep, groups: Sequence[Group], console: Console) -> None:
    """Print one line a method, and what the differences can and cannot show."""
    table = Table(box=None, pad_edge=False)
    table.add_column("accuracy", no_wrap=True)
    for name in ("runs", "mean", "95% interval"):
        table.add_column(name, justify="right")
    if sweep.baseline is not None:
        for name in (f"- {_words(sweep.baseline)}", "95% interval", "p", "detectable"):
            table.add_column(name, justify="right")
    for group in groups:
        accuracy = group.accuracy
        row = [escape(_words(group.point) or sweep.name), f"{accuracy.count if accuracy else 0}/{group.runs}",
               f"{accuracy.mean:.1%}" if accuracy else "missing", _range(accuracy)]  # fmt: skip
        if group.comparison is not None:
            change = group.comparison.difference.difference
            detectable = group.comparison.detectable
            row += [f"{100 * change.mean:+.1f}", _range(change, points=True),
                    "-" if group.comparison.p is None else f"{group.comparison.p:.3f}",
                    "-" if detectable is None else f"{100 * detectable:.1f}"]  # fmt: skip
        table.add_row(*row)
    console.print(table)
    if any(group.comparison is not None for group in groups):
        console.print(
            "over seeds and draws; differences in points, paired; intervals: Student's t; p: sign-flip permutations,\n"
            "corrected by Holm; detectable: what so many pairs of this spread show 4 times in 5"
        )
    for group in groups:
        for caution in group.comparison.cautions if group.comparison is not None else ():
            console.print(f"caution, {escape(_words(group.point))}: {escape(caution)}")


def to_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The summary as plain values."""
    return [asdict(group) for group in groups]


def _words(point: Point) -> str:
    return " ".join(str(value) if key == "method" else f"{key}={json.dumps(value)}" for key, value in point.items())


def _range(interval: MeanInterval | None, *, points: bool = False) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    if points:
        return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    return f"{interval.low:.1%} to {interval.high:.1%}"
