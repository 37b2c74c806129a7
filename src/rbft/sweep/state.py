"""What is known of each run on disk: its record, the lock of the process that runs it, and whether it is finished."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rbft.errors import StageError
from rbft.files import read_json, write_json
from rbft.runs.lock import RunLock
from rbft.runs.names import METRICS
from rbft.runs.stage_record import hash_outputs
from rbft.sweep.grid import Run

Status = Literal["running", "finished", "failed", "interrupted"]
Failure = Literal["", "configuration", "explained", "crashed"]
"""Why a run failed: a wrong key (exit code 2); an error that rbft puts into words, such as a loss that is not finite,
and that would come again; anything else, such as a signal or lack of memory, which may not."""


@dataclass(frozen=True)
class Record:
    """The last try of a run, written by the worker that made it.

    Args:
        run: id of the run.
        settings: fingerprint of its settings.
        status: state of the last try.
        tries: number of starts.
        code: exit code; below 0 the signal that ended it; None while it runs.
        failure: kind of failure.
        reason: the reason in one line.
        seconds: duration of the last try.
        marks: hashes of its metrics.json and stage records by path in the run folder, once it is finished.
    """

    run: str
    settings: str
    status: Status
    tries: int
    code: int | None = None
    failure: Failure = ""
    reason: str = ""
    seconds: float = 0.0
    marks: dict[str, str] = field(default_factory=dict)


def _record_path(folder: Path, run: str) -> Path:
    return folder / "runs" / f"{run}.json"


def write_record(folder: Path, record: Record) -> None:
    """Write a run's record below the sweep's folder, whole or not at all."""
    write_json(_record_path(folder, record.run), asdict(record))


def read_record(folder: Path, run: str) -> Record | None:
    """A run's record; None before its first try.

    Raises:
        StageError: The file is not a record of this version.
    """
    path = _record_path(folder, run)
    if not path.is_file():
        return None
    try:
        return Record(**read_json(path))
    except TypeError as error:
        raise StageError(
            f"{path} is not a record of this version ({error}). Remove it; finished stages are found "
            "again by the run itself."
        ) from error


def completion_marks(folder: Path) -> dict[str, str]:
    """Hashes of what a run leaves when it ends: the figures and the record of each stage."""
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.glob("*/stage.json"))
        if ".old-" not in path.parent.name
    ]
    return hash_outputs(folder, [*names, *([METRICS] if (folder / METRICS).is_file() else [])])


def is_finished(record: Record | None, run: Run) -> bool:
    """Whether a run ended with these very settings and its folder still holds what it left."""
    if record is None or record.status != "finished" or record.settings != run.settings:
        return False
    return completion_marks(run.folder) == record.marks


def is_running(run: Run) -> bool:
    """Whether a run is running now, in a sweep or by `rbft fit` itself."""
    return RunLock(run.folder).is_held()


def stop_file(folder: Path, session: str) -> Path:
    """File with which a driver stops its workers: the numbers of the signals to pass on, in order."""
    return folder / "stop" / session
