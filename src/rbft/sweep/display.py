"""The state of a sweep on the terminal: a live table, or plain lines where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rbft.sweep.progress import Progress, duration

_ROWS = 24
_ORDER = {"running": 0, "failed": 1, "waiting": 2, "finished": 3}
_COLOURS = {"running": "cyan", "failed": "red", "waiting": "dim", "finished": "green"}


def headline(progress: Mapping[str, Progress]) -> str:
    """How many runs are in each state."""
    states = [entry.state for entry in progress.values()]
    counts = (f"{states.count(state)} {state}" for state in ("finished", "running", "waiting", "failed"))
    return f"{len(states)} runs: {', '.join(counts)}"


class SweepBoard:
    """Shows how each run stands; a context manager around the driver's work.

    Args:
        progress: progress of each run, by id.
        console: console to draw on.
    """

    def __init__(self, progress: Mapping[str, Progress], console: Console) -> None:
        self.progress, self.console = progress, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def event(self, progress: Progress, what: str) -> None:
        """Say that something happened to a run; the table shows starts and ends by itself."""
        plain = self._live is None
        if not plain and not what.startswith(("failed", "is being")):
            return
        count = f"\\[{sum(entry.state == 'finished' for entry in self.progress.values())}/{len(self.progress)}] "
        self.console.print(
            f"{count if plain else ''}{escape(progress.run.id)}: {escape(what)}{self._figures(progress)}"
        )

    def refresh(self) -> None:
        """Draw the table anew, at most twice a second."""
        now = time.monotonic()
        if self._live is not None and now - self._shown >= 0.5:
            self._shown = now
            self._live.update(self._table(), refresh=True)

    def _figures(self, progress: Progress) -> str:
        accuracy = progress.accuracy()
        figures = [f"accuracy {accuracy:.1%}"] if accuracy is not None else []
        if progress.state == "finished" and progress.record is not None:
            figures.append(duration(progress.record.seconds))
        return f", {', '.join(figures)}" if figures else ""

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("run", "state", ""):
            table.add_column(name)
        rows = sorted(self.progress.values(), key=lambda entry: _ORDER[entry.state])
        for entry in rows[:_ROWS]:
            what = self._figures(entry).removeprefix(", ")
            if entry.state == "running":
                what = ("since " if entry.elsewhere else "") + duration(time.monotonic() - entry.since)
            elif entry.state == "failed" or (entry.state == "waiting" and entry.failures):
                what = escape(entry.reason)
            table.add_row(escape(entry.run.id), f"[{_COLOURS[entry.state]}]{entry.state}[/]", what)
        if len(rows) > _ROWS:
            table.add_row(f"... {len(rows) - _ROWS} more", "", "")
        return Group(table, headline(self.progress))
