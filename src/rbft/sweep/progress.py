"""How each run of a sweep stands, and what the remaining ones will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rbft.runs.run_folder import RunFolder, read_accuracy
from rbft.sweep.grid import Run
from rbft.sweep.state import Record

State = Literal["waiting", "running", "finished", "failed"]


@dataclass
class Progress:
    """How a run stands.

    Args:
        run: the run.
        state: state of the run.
        record: record of its last try, None before the first.
        failures: number of tries that failed since this driver started.
        elsewhere: whether a worker of an earlier driver runs it.
        since: time at which it was seen to start, by the monotonic clock.
    """

    run: Run
    state: State = "waiting"
    record: Record | None = None
    failures: int = 0
    elsewhere: bool = False
    since: float = 0.0

    @property
    def reason(self) -> str:
        """Why it failed last."""
        return self.record.reason if self.record is not None else ""

    def accuracy(self) -> float | None:
        """Accuracy of a finished run; None where it tests nothing."""
        return read_accuracy(self.run.folder) if self.state == "finished" else None


def seconds_of(run: Run) -> float | None:
    """Seconds that the stages of a run took, by their records; None where it has none."""
    return RunFolder(run.folder).seconds


def remaining_seconds(progress: Sequence[Progress]) -> tuple[float, int] | None:
    """Seconds of computing left, and the number of runs that the estimate is based on.

    A run is taken to cost as much as the finished ones that share most of its settings. Start-up is not counted.

    Returns:
        None where nothing is finished yet.
    """
    known = [
        (entry.run, seconds)
        for entry in progress
        if entry.state == "finished"
        if (seconds := seconds_of(entry.run)) is not None
    ]
    if not known:
        return None
    total = 0.0
    for entry in progress:
        if entry.state == "finished":
            continue
        shared = [sum(run.point[key] == value for key, value in entry.run.point.items()) for run, _ in known]
        near = [seconds for (_, seconds), count in zip(known, shared, strict=True) if count == max(shared)]
        total += sum(near) / len(near)
    return total, len(known)


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
