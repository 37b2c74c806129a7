"""What a sweep found: a mean with its interval for each method, and what of it differs from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.evaluation.comparison import Group, Member, compare, interval_words, point_words
from rbft.evaluation.tuned import choose_runs, without
from rbft.run_folder import RunFolder
from rbft.sweep.grid import Point, Sweep
from rbft.sweep.progress import Progress


def summarise(sweep: Sweep, progress: Sequence[Progress]) -> list[Group]:
    """Group the runs of a sweep, those that validation videos choose, and compare them with its baseline.

    Raises:
        DataError: A run cannot be chosen by validation videos.
    """
    members = [_member(one, sweep.choose) for one in progress]
    kept = [
        replace(members[place], point=without(members[place].point, sweep.choose), chosen=chosen)
        for place, chosen in choose_runs(members, sweep.choose)
    ]
    return compare(kept, sweep.baseline, sweep.replicates)


def _member(one: Progress, choose: Sequence[str]) -> Member:
    run = RunFolder(one.run.folder)
    member = Member(one.run.point, one.accuracy(), run.predictions)
    if not choose or member.accuracy is None:
        return member
    return replace(member, validation=run.validation, labels=run.labels)


def print_summary(sweep: Sweep, groups: Sequence[Group], console: Console) -> None:
    """Print what a sweep found."""
    print_groups(groups, sweep.baseline, sweep.name, console)


def print_groups(groups: Sequence[Group], baseline: Point | None, name: str, console: Console) -> None:
    """Print one line a method, and what the differences can and cannot show.

    Args:
        groups: What is to be printed.
        baseline: What they are compared with.
        name: Of a group that shares no setting.
        console: Where.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("accuracy", no_wrap=True)
    for title in ("runs", "mean", "95% interval"):
        table.add_column(title, justify="right")
    if baseline is not None:
        for title in (f"- {point_words(baseline)}", "95% interval", "p", "detectable"):
            table.add_column(escape(title), justify="right")
    for group in groups:
        accuracy = group.accuracy
        row = [
            escape(point_words(group.point) or name),
            f"{accuracy.count if accuracy else 0}/{group.runs}",
            f"{accuracy.mean:.1%}" if accuracy else "missing",
            interval_words(accuracy),
        ]
        if group.comparison is not None:
            change = group.comparison.difference.difference
            detectable = group.comparison.detectable
            row += [
                f"{100 * change.mean:+.1f}",
                interval_words(change, points=True),
                "-" if group.comparison.p is None else f"{group.comparison.p:.3f}",
                "-" if detectable is None else f"{100 * detectable:.1f}",
            ]
        table.add_row(*row)
    console.print(table)
    if any(group.comparison is not None for group in groups):
        console.print(
            "over seeds and draws; differences in points, paired; intervals: Student's t; p: sign-flip permutations,\n"
            "corrected by Holm; detectable: what so many pairs of this spread show 4 times in 5"
        )
    for group in groups:
        if group.chosen:
            who, what = escape(point_words(group.point)), escape(group.chosen_words)
            console.print(f"chosen on validation videos, {who}: {what}")
    for group in groups:
        for caution in group.comparison.cautions if group.comparison is not None else ():
            console.print(f"caution, {escape(point_words(group.point))}: {escape(caution)}")


def to_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The summary as plain values."""
    return [asdict(group) for group in groups]
