"""The report of a check of a data set: plain values for programs, tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.data.findings import Finding, Kind, Severity

_SHOWN_OF_A_KIND = 10
_CLASSES_SHOWN = 12
_STYLE: dict[Severity, str] = {"error": "red", "warning": "yellow"}


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        root: The data root.
        findings: Errors first, then by kind in the order of `Kind`.
        counts: Videos by split and class.
        ranges: Least, median and largest value of a quantity over the readable videos of all splits.
        notes: What was not checked, and why.
    """

    root: str
    findings: tuple[Finding, ...]
    counts: Mapping[str, Mapping[str, int]]
    ranges: Mapping[str, tuple[float, float, float]]
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings for which training should not start."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def with_more(self, findings: Iterable[Finding], notes: Iterable[str] = ()) -> CheckReport:
        """The same with what was found elsewhere, in order."""
        order = {kind: number for number, kind in enumerate(get_args(Kind))}
        every = sorted([*self.findings, *findings], key=lambda finding: order[finding.kind])
        return replace(self, findings=tuple(every), notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "root": self.root,
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "message": finding.message,
                    "ids": list(finding.ids),
                }
                for finding in self.findings
            ],
            "counts": {side: dict(counts) for side, counts in self.counts.items()},
            "ranges": {
                name: dict(zip(("min", "median", "max"), values, strict=True)) for name, values in self.ranges.items()
            },
            "notes": list(self.notes),
        }


def print_report(report: CheckReport, console: Console) -> None:
    """Print counts, ranges and findings: the first ten of each kind, all of which are in `CheckReport.to_json`."""
    console.print(f"[bold]{escape(report.root)}[/]")
    console.print(_counts(report))
    if report.ranges:
        console.print(_ranges(report))
    for note in report.notes:
        console.print(escape(note))
    for kind, same in groupby(report.findings, key=lambda finding: finding.kind):
        _print_kind(kind, list(same), console)
    console.print(_summary(report))


def _counts(report: CheckReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("videos")
    for side in report.counts:
        table.add_column(side, justify="right")
    names = list(next(iter(report.counts.values())))
    for name in names[:_CLASSES_SHOWN]:
        table.add_row(escape(name), *(str(counts[name]) for counts in report.counts.values()))
    if len(names) > _CLASSES_SHOWN:
        table.add_row(f"... {len(names) - _CLASSES_SHOWN} more classes")
    table.add_row("all", *(str(sum(counts.values())) for counts in report.counts.values()), style="bold")
    return table


def _ranges(report: CheckReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("readable videos")
    for title in ("min", "median", "max"):
        table.add_column(title, justify="right")
    for name, values in report.ranges.items():
        table.add_row(name, *(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}" for value in values))
    return table


def _print_kind(kind: str, findings: list[Finding], console: Console) -> None:
    severity = findings[0].severity
    title = kind.replace("_", " ")
    console.print(f"[{_STYLE[severity]}]{severity}[/] {title} ({len(findings)})")
    for finding in findings[:_SHOWN_OF_A_KIND]:
        console.print(f"  {escape(finding.message)}")
    if len(findings) > _SHOWN_OF_A_KIND:
        console.print(f"  ... and {len(findings) - _SHOWN_OF_A_KIND} more")


def _summary(report: CheckReport) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    if not counts:
        return "[green]nothing is wrong[/]"
    said = ", ".join(f"{counts[name]} {name}{'s' if counts[name] > 1 else ''}" for name in _STYLE if counts[name])
    return f"[bold]{said}[/]"
