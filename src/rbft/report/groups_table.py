"""Methods with their accuracies and differences as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.evaluation.comparison import Group, Point, interval_words, point_words, repeats_words
from rbft.runs.run_folder import REPLICATES


def print_groups(
    groups: Sequence[Group],
    baseline: Point | None,
    name: str,
    console: Console,
    replicates: Sequence[str] = REPLICATES,
) -> None:
    """Print a row for each method, and notes on what the differences can and cannot show.

    Args:
        groups: groups to print.
        baseline: what they are compared with; None for nothing.
        name: name of a group whose runs share no setting.
        console: console to print on.
        replicates: keys that repeat a run.
    """
    names = [escape(point_words(group.point) or name) for group in groups]
    accuracies = [["runs", "mean", "95% interval", "chance", "majority"], *map(_accuracy, groups)]
    if any(group.labelled is not None for group in groups):
        labelled = ["labels", *(group.labelled_words for group in groups)]
        accuracies = [[count, *row] for count, row in zip(labelled, accuracies, strict=True)]
    if baseline is None:
        _print_table("accuracy", names, accuracies, console)
    else:
        heads = [escape(f"- {point_words(baseline)}"), "95% interval", "p", "detectable"]
        changes = [heads, *map(_change, groups)]
        together = [one + other for one, other in zip(accuracies, changes, strict=True)]
        widest = max(map(len, [*names, "accuracy"]))
        width = widest + sum(2 + max(map(len, column)) for column in zip(*together, strict=True))
        if width <= console.width:
            _print_table("accuracy", names, together, console)
        else:
            _print_table("accuracy", names, accuracies, console)
            _print_table("difference", names, changes, console)
    if any(group.comparison is not None for group in groups):
        console.print(
            f"over {escape(repeats_words(replicates))}; differences in points, paired; intervals: Student's t; "
            "p: sign-flip permutations, "
            "corrected by Holm; detectable: the difference that so many pairs of this spread show 4 times in 5"
        )
    for group in groups:
        if group.chosen:
            who, what = escape(point_words(group.point)), escape(group.chosen_words)
            console.print(f"chosen on validation videos, {who}: {what}")
    for group in groups:
        for caution in group.comparison.cautions if group.comparison is not None else ():
            console.print(f"caution, {escape(point_words(group.point))}: {escape(caution)}")


def _accuracy(group: Group) -> list[str]:
    accuracy = group.accuracy
    return [
        f"{accuracy.count if accuracy else 0}/{group.runs}",
        f"{accuracy.mean:.1%}" if accuracy else "missing",
        interval_words(accuracy),
        *("-" if floor is None else f"{floor:.1%}" for floor in (group.chance, group.majority)),
    ]


def _change(group: Group) -> list[str]:
    if group.comparison is None:
        return ["", "", "", ""]
    change, detectable = group.comparison.difference.difference, group.comparison.detectable
    return [
        f"{100 * change.mean:+.1f}",
        interval_words(change, points=True),
        "-" if group.comparison.p is None else f"{group.comparison.p:.3f}",
        "-" if detectable is None else f"{100 * detectable:.1f}",
    ]


def _print_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table; its first row holds the headings."""
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for heading in rows[0]:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in zip(names, rows[1:], strict=True):
        table.add_row(name, *row)
    console.print(table)
