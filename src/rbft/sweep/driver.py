"""The loop of a sweep: which runs wait, run, are finished or failed, and what is started next."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self

from filelock import FileLock, Timeout

from rbft.errors import StageError
from rbft.files import remove_unfinished, write_atomic
from rbft.runs.lock import RunLock, is_alive
from rbft.sweep.grid import Run, Sweep
from rbft.sweep.options import Job, Launcher
from rbft.sweep.progress import Progress, State, expected_seconds
from rbft.sweep.state import Record, is_finished, is_running, read_record, stop_file
from rbft.sweep.worker import Plan, write_plan

# -P: a Python file in the current folder, such as a lightning.py, is not imported in the place of the library
PYTHON = (sys.executable, "-P", "-m")
FIT = (*PYTHON, "rbft", "fit")
PRELOADED_FIT = "rbft.commands.fit:preload"
_LOOK_ELSEWHERE = 1.0
_LONG_AGO = 3600.0


class Board(Protocol):
    """Shows a sweep."""

    def event(self, progress: Progress, what: str) -> None:
        """Something happened to a run."""
        ...

    def refresh(self) -> None:
        """Some time went by."""
        ...


@dataclass
class _Launched:
    job: Job
    slot: int
    tries: dict[str, int]
    open: list[str] = field(default_factory=list)
    begun: bool = False


class Driver:
    """Carries out a sweep.

    Args:
        sweep: the sweep to carry out.
        launcher: where runs are started.
        progress: progress of each run by id, as shown by the board.
        board: display of the progress.
        command: command that starts a run; the run's arguments follow.
        entry: `module:function` that a worker of several runs calls instead.
        verify: whether finished runs are started as well, to check their videos and models again.
        until: time, in seconds since 1970, after which no run is begun, nor one that is expected to take longer than
            what is left; None for no limit.
        allowed: function that gives the ids of the runs that may be started now; None for all.
    """

    def __init__(
        self,
        sweep: Sweep,
        launcher: Launcher,
        progress: dict[str, Progress],
        board: Board,
        *,
        command: Sequence[str] = FIT,
        entry: str = PRELOADED_FIT,
        verify: bool = False,
        until: float | None = None,
        allowed: Callable[[Mapping[str, Progress]], Collection[str]] | None = None,
    ) -> None:
        self.until, self.allowed = until, allowed
        self.sweep, self.launcher, self.progress, self.board = sweep, launcher, progress, board
        self.command, self.entry, self.verify = tuple(command), entry, verify
        self.session = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._folder = sweep.folder.absolute()
        self._launched: list[_Launched] = []
        self._looked = 0.0

    def run(self) -> int:
        """Carry the sweep out until nothing is left to do or somebody asks to stop.

        Returns:
            The number of the signal that ended it, 0 where none did.

        Raises:
            StageError: Another driver is at the same sweep.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            alone = FileLock(self._folder / "driver.lock").acquire(timeout=0)
        except Timeout as error:
            raise StageError(f"another `rbft sweep` is at {self.sweep.folder}; wait for it or stop it.") from error
        with alone, _Signals() as signals:
            # of drivers and workers that were killed; others may be writing right now
            for folder in (self._folder, *filter(Path.is_dir, self._folder.iterdir())):
                remove_unfinished(folder, _LONG_AGO)
            self.write_plan(self.sweep.runs)
            self._look_around()
            passed = 0
            while True:
                self._collect(stopping=bool(signals.asked))
                if len(signals.asked) > passed:
                    passed = len(signals.asked)
                    self._stop(signals.asked)
                if not signals.asked:
                    self._start_some()
                self.board.refresh()
                if not self._launched and not self._states("running") and (signals.asked or not self._waiting()):
                    return signals.asked[0] if signals.asked else 0
                time.sleep(self.launcher.poll)

    def write_plan(self, runs: Sequence[Run]) -> None:
        """Write the plan of the workers and of reports.

        Args:
            runs: runs that it lists.
        """
        by_id, sweep = {run.id: run for run in runs}, self.sweep
        compared = (sweep.choose, sweep.baseline, sweep.replicates)
        write_plan(Plan(self._folder, Path.cwd(), self.command, self.entry, by_id, *compared))

    def _states(self, state: State) -> list[Progress]:
        return [progress for progress in self.progress.values() if progress.state == state]

    def _waiting(self) -> list[Progress]:
        """Runs to start, those that failed last; none that would end after the limit."""
        taken = {name for launched in self._launched for name in launched.open}
        waiting = [progress for progress in self._states("waiting") if progress.run.id not in taken]
        if self.allowed is not None:
            may = self.allowed(self.progress)
            waiting = [progress for progress in waiting if progress.run.id in may]
        if self.until is not None:
            left, known = self.until - time.time(), list(self.progress.values())
            waiting = [progress for progress in waiting if left > expected_seconds(progress.run, known)]
        return sorted(waiting, key=lambda progress: progress.failures)

    def _is_late(self) -> bool:
        """Whether no run may be begun any more."""
        return self.until is not None and time.time() >= self.until

    # -- what is there

    def _look_around(self) -> None:
        """Find what earlier drivers finished, and what their workers are still at."""
        for progress in self.progress.values():
            progress.record = read_record(self._folder, progress.run.id)
            if is_running(progress.run):
                self._leave_elsewhere(progress)
            elif is_finished(progress.record, progress.run) and not self.verify:
                progress.state = "finished"

    def _leave_elsewhere(self, progress: Progress) -> None:
        progress.state, progress.elsewhere, progress.since = "running", True, time.monotonic()
        holder = RunLock(progress.run.folder).holder()
        who = f" (process {holder.pid} on {holder.host})" if holder is not None else ""
        self.board.event(progress, f"is being run already{who}; waiting for it")

    def _busy_slots(self) -> set[int]:
        """Slots of this driver's workers, and of this machine's that an earlier one left."""
        busy = {launched.slot for launched in self._launched}
        for progress in self.progress.values():
            if progress.elsewhere and (holder := RunLock(progress.run.folder).holder()) is not None:
                busy.add(holder.slot)
        return busy

    # -- starting

    def _start_some(self) -> None:
        busy = self._busy_slots()
        for slot in range(self.launcher.slots):
            if slot in busy:
                continue
            waiting = self._waiting()
            if not waiting:
                return
            share = math.ceil(len(waiting) / self.launcher.slots)
            chunk = waiting[: min(self.sweep.launch.per_process, share)]
            names = [progress.run.id for progress in chunk]
            command = [
                *PYTHON,
                "rbft.sweep.worker",
                "--folder",
                str(self._folder),
                "--session",
                self.session,
                "--slot",
                str(slot),
            ]
            command += ["--parent", str(os.getpid())] if self.launcher.tied else []
            command += ["--preload"] if self.sweep.launch.per_process > 1 else []
            command += ["--again"] if self.verify else []
            command += ["--until", str(self.until)] if self.until is not None else []
            tries = {p.run.id: p.record.tries if p.record is not None else 0 for p in chunk}
            job = self.launcher.start([*command, *names], slot)
            self._launched.append(_Launched(job, slot, tries, names))

    # -- what became of it

    def _collect(self, stopping: bool) -> None:
        for launched in list(self._launched):
            # asked first: what a worker that has ended left is all there
            done = launched.job.done()
            for name in list(launched.open):
                self._read(launched, self.progress[name], stopping)
            if done:
                self._launched.remove(launched)
                self._sort_out(launched, stopping)
        if time.monotonic() - self._looked >= _LOOK_ELSEWHERE:
            self._looked = time.monotonic()
            for progress in self.progress.values():
                if progress.elsewhere and not is_running(progress.run):
                    self._came_back(progress, stopping)

    def _read(self, launched: _Launched, progress: Progress, stopping: bool) -> None:
        """Look at the record of a run that a worker was given."""
        record = read_record(self._folder, progress.run.id)
        if record is None or record.tries <= launched.tries[progress.run.id]:
            return
        launched.begun, progress.record = True, record
        if record.status != "running":
            launched.open.remove(progress.run.id)
            self._settle(progress, stopping)
        elif progress.state != "running":
            progress.state, progress.since = "running", time.monotonic()
            self.board.event(progress, "started")

    def _sort_out(self, launched: _Launched, stopping: bool) -> None:
        """Runs that a worker left open when it ended."""
        for name in launched.open:
            progress = self.progress[name]
            progress.record = read_record(self._folder, name)
            begun = progress.record is not None and progress.record.tries > launched.tries[name]
            if is_running(progress.run):
                self._leave_elsewhere(progress)
            elif is_finished(progress.record, progress.run):
                self._settle(progress, stopping)
            elif stopping or (not begun and (launched.begun or self._is_late())):
                progress.state = "waiting"
            else:
                # the first of a worker that began nothing stands for it: one that cannot start is not started for ever
                launched.begun = True
                self._failed(progress, f"its worker ended: {launched.job.reason()}", again=True)

    def _came_back(self, progress: Progress, stopping: bool) -> None:
        """A run that a worker of an earlier driver was at has ended."""
        before, progress.record = progress.record, read_record(self._folder, progress.run.id)
        progress.elsewhere, progress.state = False, "waiting"
        record = progress.record
        ended = record is not None and record.status != "running" and record.settings == progress.run.settings
        if ended and (record != before or is_finished(record, progress.run)):
            self._settle(progress, stopping)

    def _settle(self, progress: Progress, stopping: bool) -> None:
        """A try has ended."""
        record = progress.record
        assert record is not None
        if record.status == "finished":
            progress.state = "finished"
            self.board.event(progress, "finished")
        elif record.status == "interrupted" and stopping:
            progress.state = "waiting"
            self.board.event(progress, "stopped, and saved")
        else:
            self._failed(progress, record.reason, again=record.failure == "crashed")

    def _failed(self, progress: Progress, reason: str, *, again: bool) -> None:
        progress.failures += 1
        if progress.record is None or progress.record.status in ("running", "finished"):
            tries = progress.record.tries if progress.record is not None else 0
            progress.record = Record(progress.run.id, progress.run.settings, "failed", tries, reason=reason)
        if again and progress.failures <= self.sweep.launch.retries:
            progress.state = "waiting"
            self.board.event(progress, f"failed: {reason}; it will be tried again")
        else:
            progress.state = "failed"
            self.board.event(progress, f"failed: {reason}")

    # -- stopping

    def _stop(self, asked: Sequence[int]) -> None:
        """Pass all signals so far on to every worker, this driver's and those it found."""
        # a run knows these two; a closed terminal is a wish to stop like any other
        numbers = [signal.SIGINT if number == signal.SIGINT else signal.SIGTERM for number in asked]
        text = " ".join(str(int(number)) for number in numbers)
        write_atomic(stop_file(self._folder, self.session), text)
        for progress in self.progress.values():
            holder = RunLock(progress.run.folder).holder() if progress.elsewhere else None
            if holder is None:
                continue
            if not holder.session:
                # no sweep started it, so none stops it, nor waits for it
                progress.elsewhere, progress.state = False, "waiting"
                continue
            if holder.host == socket.gethostname() and not is_alive(holder.worker):
                os.kill(holder.pid, numbers[-1])
            else:
                write_atomic(stop_file(self._folder, holder.session), text)
        self._launched = [launched for launched in self._launched if launched.begun or not launched.job.cancel()]


class _Signals:
    """Notes Ctrl-C, SIGTERM and SIGHUP inside a `with` block, in place of what they do by default."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.asked.append(number)
