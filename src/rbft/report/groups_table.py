"""Methods with their accuracies and differences as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.evaluation.comparison import Group, Point, interval_words, point_words


def print_groups(groups: Sequence[Group], baseline: Point | None, name: str, console: Console) -> None:
    """Print a row for each method, and notes on what the differences can and cannot show.

    Args:
        groups: groups to print.
        baseline: what they are compared with; None for nothing.
        name: name of a group whose runs share no setting.
        console: console to print on.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("accuracy", no_wrap=True)
    for title in ("runs", "mean", "95% interval", "chance", "majority"):
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
            *("-" if floor is None else f"{floor:.1%}" for floor in (group.chance, group.majority)),
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
            "corrected by Holm; detectable: the difference that so many pairs of this spread show 4 times in 5"
        )
    for group in groups:
        if group.chosen:
            who, what = escape(point_words(group.point)), escape(group.chosen_words)
            console.print(f"chosen on validation videos, {who}: {what}")
    for group in groups:
        for caution in group.comparison.cautions if group.comparison is not None else ():
            console.print(f"caution, {escape(point_words(group.point))}: {escape(caution)}")
