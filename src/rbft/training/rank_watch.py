"""When one process of a run ends, the others end within seconds, and the message names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

from rbft.errors import RBFTError, StageError

_AGAIN = "What was saved is whole: the same command continues."


def _how(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"ended with code {code}; what it said stands above"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


class RankWatch:
    """Looks after the other processes of a run that the trainer started on this machine.

    A process that waits in a collective for one that is gone cannot notice by itself (NCCL waits for half an hour), so
    a thread looks: in the first process at those it started, in the others at the first. Lightning's own observer
    would kill all without a word. Processes that torchrun or Slurm started are theirs to look after.

    Args:
        seconds: seconds between two checks.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        self._seconds = seconds
        self._launcher: Any = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._parent = os.getppid() if _started_by_trainer() else None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def look_after(self, trainer: L.Trainer) -> None:
        """Know the processes that a trainer is about to start."""
        self._launcher = trainer.strategy.launcher

    def __enter__(self) -> RankWatch:
        self._thread = threading.Thread(target=self._look, daemon=True, name="rank-watch")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Around work of all processes: an error because one of them is gone is reported as that.

        Raises:
            StageError: A process ended; names it.
        """
        try:
            yield
        except RBFTError:
            raise
        except Exception as error:
            # the connection breaks before the process can be seen to have ended
            deadline = time.monotonic() + (5 if self._started or self._parent else 0)
            while (gone := self._gone()) is None and time.monotonic() < deadline:
                time.sleep(self._seconds)
            if gone is None:
                raise
            self._end_others()
            raise StageError(gone) from error

    def _look(self) -> None:
        while not self._over.wait(self._seconds):
            self._take_over()
            if (gone := self._gone()) is not None:
                # the main thread may speak first, unless it waits for the one that is gone
                if self._over.wait(3):
                    return
                print(f"rbft: {gone}", file=sys.stderr, flush=True)
                self._end_others()
                os._exit(1)

    def _take_over(self) -> None:
        """The trainer's processes, taken off its own list, which is what its observer goes by."""
        started = getattr(self._launcher, "procs", [])
        if started and len(started) == self._launcher.num_processes - 1:
            self._started += started
            started.clear()

    def _gone(self) -> str | None:
        """Which process ended as it should not have; None if none."""
        if self._parent is not None and os.getppid() != self._parent:
            return f"process 0 of this run (pid {self._parent}) is gone, and {_me()} ends with it. {_AGAIN}"
        for number, process in enumerate(self._started, start=1):
            if code := process.poll():
                return f"process {number} of this run (pid {process.pid}) {_how(code)}. {_AGAIN}"
        return None

    def _end_others(self) -> None:
        for process in self._started:
            process.kill()


def _started_by_trainer() -> bool:
    """Whether Lightning in another process started this one; torchrun names all ranks."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and not {"RANK", "SLURM_PROCID"} & set(os.environ)


def _me() -> str:
    return f"process {os.environ.get('LOCAL_RANK', '0')} (pid {os.getpid()})"
