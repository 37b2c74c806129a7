"""The process that carries out runs one after another, wherever a launcher starts it: `python -m rbft.sweep.worker`.

Every run has a process of its own. With `--preload` they are forks of this one, which has imported everything before;
otherwise each starts as a new command. A run that dies takes nothing with it either way.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rbft.errors import printable
from rbft.files import read_json, write_json
from rbft.runs.lock import INHERITED, Holder, RunLock
from rbft.sweep.grid import Run
from rbft.sweep.state import (
    Failure,
    Record,
    completion_marks,
    is_finished,
    read_record,
    stop_file,
    write_record,
)

_POLL = 0.5
# set by Slurm for a job's task: Lightning would take them for ranks that srun has started
_SLURM_TASK = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID")


@dataclass(frozen=True)
class Plan:
    """What workers need to know of a sweep, from its `plan.json`.

    Args:
        folder: the sweep's folder.
        where: folder that the sweep was started in; paths of files and flags are relative to it.
        command: command that starts a run; the run's arguments follow.
        entry: `module:function` that a preloaded worker calls once; forks call what it returns with a run's arguments.
        runs: all runs by id.
        choose: swept keys that validation videos choose; for a report of the sweep.
        baseline: what its runs are compared with; for a report of the sweep, too.
        replicates: keys that repeat a run; for a report as well. None: they are not known.
    """

    folder: Path
    where: Path
    command: tuple[str, ...]
    entry: str
    runs: dict[str, Run]
    choose: tuple[str, ...] = ()
    baseline: Mapping[str, Any] | None = None
    replicates: tuple[str, ...] | None = None


def write_plan(plan: Plan) -> None:
    """Write the plan for the workers to come."""
    runs = {
        run.id: {"point": run.point, "args": run.args, "folder": str(run.folder), "settings": run.settings}
        for run in plan.runs.values()
    }
    content = {
        "where": str(plan.where),
        "command": plan.command,
        "entry": plan.entry,
        "choose": plan.choose,
        "baseline": plan.baseline,
        "replicates": plan.replicates,
        "runs": runs,
    }
    write_json(plan.folder / "plan.json", content)


def read_plan(folder: Path) -> Plan:
    """Read the plan that the driver has written."""
    content = read_json(folder / "plan.json")
    runs = {
        name: Run(name, row["point"], tuple(row["args"]), Path(row["folder"]), row["settings"])
        for name, row in content["runs"].items()
    }
    return Plan(folder, Path(content["where"]), tuple(content["command"]), content["entry"], runs)


class Worker:
    """Carries out some runs of a sweep.

    Args:
        plan: plan of the sweep.
        session: session of the driver that asked for the runs.
        slot: slot of the runs, noted in their locks.
        parent: process that must be alive for another run to start; None where the worker outlives its driver.
        preload: whether runs are forks of this process.
        again: whether finished runs are started as well.
        until: time, in seconds since 1970, after which no other run is begun; None for no limit.
    """

    def __init__(
        self,
        plan: Plan,
        session: str,
        slot: int,
        *,
        parent: int | None,
        preload: bool,
        again: bool,
        until: float | None = None,
    ) -> None:
        self.plan, self.session, self.slot = plan, session, slot
        self.parent, self.preload, self.again, self.until = parent, preload, again, until
        self._asked: list[int] = []

    def work(self, names: Sequence[str]) -> None:
        """Carry out runs until all are tried or somebody asks to stop."""
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)
        # Slurm announces the end of a job by it, to all processes; submitit's own turns it into SIGTERM
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        main = _import_entry(self.plan.entry) if self.preload else None
        for name in names:
            if self._wishes() or (self.parent is not None and os.getppid() != self.parent):
                return
            if self.until is not None and time.time() >= self.until:
                return
            self._try(self.plan.runs[name], main)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._asked.append(number)

    def _wishes(self) -> list[int]:
        """The signals that were asked for so far, here or by the driver."""
        path = stop_file(self.plan.folder, self.session)
        return [*self._asked, *(int(word) for word in (path.read_text().split() if path.is_file() else ()))]

    def _try(self, run: Run, main: Any) -> None:
        """One try, unless the run is finished or somebody else is at it."""
        lock = RunLock(run.folder)
        if not lock.acquire(patience=1.0):
            return
        try:
            before = read_record(self.plan.folder, run.id)
            if is_finished(before, run) and not self.again:
                return
            record = Record(run.id, run.settings, "running", (before.tries if before else 0) + 1)
            write_record(self.plan.folder, record)
            path = self.plan.folder / "logs" / f"{run.id}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as log:
                log.write(f"--- try {record.tries}, {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode())
                log.flush()
                start, begin = time.monotonic(), log.tell()
                code = self._fork(run, main, lock, log.fileno()) if main else self._spawn(run, lock, log.fileno())
            write_record(self.plan.folder, conclude(record, run, code, path, begin, time.monotonic() - start))
        finally:
            lock.release()

    def _spawn(self, run: Run, lock: RunLock, log: int) -> int:
        process = subprocess.Popen(
            [*self.plan.command, *run.args],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.descriptor],
            env={**os.environ, INHERITED: str(lock.descriptor)},
        )
        lock.note(Holder(socket.gethostname(), os.getpid(), process.pid, self.slot, self.session))
        sent = 0
        while True:
            try:
                return process.wait(_POLL)
            except subprocess.TimeoutExpired:
                sent = self._pass_on(process.pid, sent)

    def _fork(self, run: Run, main: Any, lock: RunLock, log: int) -> int:
        process = multiprocessing.get_context("fork").Process(
            target=_run_forked, args=(main, run.args, log, lock.descriptor)
        )
        process.start()
        assert process.pid is not None
        lock.note(Holder(socket.gethostname(), os.getpid(), process.pid, self.slot, self.session))
        sent = 0
        while True:
            process.join(_POLL)
            if process.exitcode is not None:
                return process.exitcode
            sent = self._pass_on(process.pid, sent)

    def _pass_on(self, pid: int, sent: int) -> int:
        """Send a run the signals that were asked for since; a second one ends it at once."""
        wishes = self._wishes()
        for number in wishes[sent:]:
            os.kill(pid, number)
        return len(wishes)


def _import_entry(entry: str) -> Any:
    module, function = entry.split(":")
    threads = os.environ.get("OMP_NUM_THREADS")
    # a pool of threads does not live through a fork
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    preloaded = getattr(importlib.import_module(module), function)()
    os.environ.pop("OPENBLAS_NUM_THREADS")
    if threads is None:
        os.environ.pop("OMP_NUM_THREADS")
    else:
        os.environ["OMP_NUM_THREADS"] = threads
    return preloaded


def _run_forked(main: Any, args: Sequence[str], log: int, lock: int) -> None:
    """A forked run: as if it had been started by its command."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[INHERITED] = str(lock)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["rbft", "fit", *args]
    sys.exit(main(args))


def conclude(record: Record, run: Run, code: int, log: Path, begin: int, seconds: float) -> Record:
    """The record of a try that has ended, from its exit code and what it printed last.

    Args:
        record: record of the try while it ran.
        run: the run.
        code: exit code; below 0 the signal that ended it.
        log: file with its output.
        begin: byte of the log at which this try begins.
        seconds: duration of the try.
    """
    with log.open("rb") as stream:
        stream.seek(begin)
        text = stream.read().decode(errors="replace")
    # what a run prints holds file names and labels, which are data of others
    lines = [printable(line.strip()) for line in text.splitlines() if line.strip()]
    said = next((line.removeprefix("rbft: ") for line in reversed(lines) if line.startswith("rbft: ")), "")
    ended = replace(record, code=code, seconds=round(seconds, 1))
    if code == 0:
        if marks := completion_marks(run.folder):
            return replace(ended, status="finished", marks=marks)
        return replace(ended, status="failed", failure="explained", reason=f"it left nothing in {run.folder}")
    if code in (129, 130, 143, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM):
        return replace(ended, status="interrupted", failure="crashed", reason=said or "stopped by a signal")
    failure: Failure = "configuration" if code == 2 else "explained" if code == 1 and said else "crashed"
    if code < 0:
        said = f"ended by signal {-code}, {signal.strsignal(-code)}"
        said += "; out of memory?" if code == -signal.SIGKILL else ""
    return replace(
        ended, status="failed", failure=failure, reason=said or (lines[-1] if lines else f"exit code {code}")
    )


def main(args: Sequence[str] | None = None) -> int:
    """The worker as a command; how its runs end is in their records, not in its exit code."""
    parser = argparse.ArgumentParser(prog="python -m rbft.sweep.worker")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--cpus", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--until", type=float)
    parser.add_argument("runs", nargs="+")
    parsed = parser.parse_args(args)
    if parsed.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, parsed.cpus)
    # for the processes that runs start by themselves, such as ranks
    os.environ["PYTHONSAFEPATH"] = "1"
    for name in _SLURM_TASK:
        os.environ.pop(name, None)
    plan = read_plan(parsed.folder)
    os.chdir(plan.where)
    worker = Worker(
        plan,
        parsed.session,
        parsed.slot,
        parent=parsed.parent,
        preload=parsed.preload,
        again=parsed.again,
        until=parsed.until,
    )
    worker.work(parsed.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
