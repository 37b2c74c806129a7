"""How each run of a sweep stands, and what the remaining ones will cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rbft.runs.run_folder import RunFolder, read_accuracy, stage_records
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
    return sum(_of_nearest(entry.run, known) for entry in progress if entry.state != "finished"), len(known)


def _of_nearest(run: Run, known: Sequence[tuple[Run, float]]) -> float:
    """Mean seconds of the known runs that share most settings with a run."""
    shared = [sum(other.point.get(key) == value for key, value in run.point.items()) for other, _ in known]
    near = [seconds for (_, seconds), count in zip(known, shared, strict=True) if count == max(shared)]
    return sum(near) / len(near)


def expected_seconds(run: Run, progress: Sequence[Progress]) -> float:
    """Seconds that a run will take with its start, by the finished runs of its method; 0 where there is none yet."""
    known = [
        (entry.run, entry.record.seconds)
        for entry in progress
        if entry.state == "finished" and entry.record is not None
        if entry.run.point.get("method") == run.point.get("method")
    ]
    return _of_nearest(run, known) if known else 0.0


def method_seconds(progress: Sequence[Progress]) -> dict[str, float]:
    """Mean seconds that the finished runs of each method compute.

    Rationales that a run took from another one count as if it had written them.
    """
    finished = [entry.run for entry in progress if entry.state == "finished"]
    records = {run.id: [record for _, record in stage_records(run.folder)] for run in finished}
    written: dict[str, list[float]] = {}
    for record in itertools.chain.from_iterable(records.values()):
        if "taken_from" not in record.summary:
            written.setdefault(record.stage, []).append(record.seconds)
    seconds: dict[str, list[float]] = {}
    for run in finished:
        own = (
            fmean(written.get(record.stage, [0.0])) if "taken_from" in record.summary else record.seconds
            for record in records[run.id]
        )
        seconds.setdefault(str(run.point.get("method")), []).append(sum(own))
    return {method: fmean(values) for method, values in seconds.items()}


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
