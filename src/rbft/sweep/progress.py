"""How each run of a sweep stands, as the driver sees it and the board shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbft.runs.run_folder import read_accuracy
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
