"""The lock of a run folder: one process at a time runs there, whichever command started it."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from rbft.errors import StageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

KERNEL_LOCKS = fcntl is not None
"""Whether this system has flock(2), which processes can hold together and lose when they are killed."""

INHERITED = "RBFT_RUN_LOCK"
"""Environment variable with the number of the open lock file that the process of a sweep's run inherits."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_REMAINS = 60.0  # seconds that what a killed process had started may take to end


@dataclass(frozen=True)
class Holder:
    """Who has the lock of a run.

    Args:
        host: name of the machine.
        worker: process id of the sweep's worker; of the run itself where no sweep started it.
        pid: process id of the run itself.
        slot: slot of the sweep that runs it; below 0 where no sweep started it.
        session: session of the sweep's driver; empty where no sweep started it.
    """

    host: str
    worker: int
    pid: int
    slot: int = -1
    session: str = ""

    @property
    def gone(self) -> bool:
        """Whether the run's process has ended; of another machine it is not known, and counts as running."""
        return self.host == socket.gethostname() and not is_alive(self.pid)


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine; one that has ended and waits to be noticed does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's
        return True


class RunLock:
    """Held by the process of a run, and by a sweep's worker: nobody else starts it, whichever of them is killed.

    It is an flock(2) on an open file that the run's process inherits from a worker: the kernel gives it up when the
    last of them is gone. That includes other machines where the file system knows such locks (NFS does). Where it, or
    the system, knows none, the process named in the file has it as long as it lives.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.parent / f".{folder.name}.lock"
        self._file: int | None = None
        self._made: list[Path] = []

    def acquire(self, patience: float = 0.0) -> bool:
        """Take the lock; False if somebody else keeps it for `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            self._made += [parent for parent in self.path.parents if not parent.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if self._try(file) and self._is_the_file(file):
                os.ftruncate(file, 0)
                self._file = file
                return True
            os.close(file)
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)

    def _is_the_file(self, file: int) -> bool:
        """Whether an open file still lies there: whoever had it may have removed it."""
        try:
            inherited, here = os.fstat(file), self.path.stat()
        except OSError:
            return False
        return (inherited.st_dev, inherited.st_ino) == (here.st_dev, here.st_ino)

    def inherit(self) -> bool:
        """Take over the open file of the worker that started this process; False where there is none of this run."""
        number = os.environ.get(INHERITED, "")
        if not number.isdecimal() or not self._is_the_file(int(number)):
            return False
        self._file = int(number)
        return True

    def note(self, holder: Holder) -> None:
        """Say in the file who has it."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.write(self.descriptor, json.dumps(asdict(holder)).encode())

    @property
    def descriptor(self) -> int:
        """The open file that a run's process has to inherit."""
        assert self._file is not None, "the lock is not held"
        return self._file

    def release(self) -> None:
        """Give it up; a run that is still going keeps it."""
        os.close(self.descriptor)
        self._file = None

    def remove(self) -> None:
        """Remove the file while it is held, and the folders that were made for it, as far as they are empty."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def is_held(self) -> bool:
        """Whether somebody has it."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not self._try(file)
        finally:
            os.close(file)

    def holder(self) -> Holder | None:
        """Who has it, if it is noted already; only of use while the lock is held."""
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _try(self, file: int) -> bool:
        if fcntl is None:
            return self._left()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return self._left()
        return True

    def _left(self) -> bool:
        """Whether nobody has it by what stands in the file."""
        holder = self.holder()
        return holder is None or holder.gone


@contextmanager
def holding_run(folder: Path, *, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Keep every other process out of a run folder during the block.

    Args:
        folder: run folder.
        wait: whether to wait for whoever has it.
        say: function that prints what is waited for.

    Raises:
        StageError: Somebody else has it; names the machine and the process.
        OSError: Nothing may be written there.
    """
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    lock = RunLock(folder)
    if lock.inherit():
        # the worker says who has it, and gives it up
        yield
        return
    if not lock.acquire(patience=0.2):
        _wait(lock, folder, say) if wait else _refuse(lock, folder, say)
    try:
        lock.note(Holder(socket.gethostname(), os.getpid(), os.getpid()))
        yield
    finally:
        # whoever waits makes a file of its own
        lock.remove()
        lock.release()


def _words(holder: Holder | None) -> str:
    return "another process" if holder is None else f"process {holder.pid} on {holder.host}"


def _refuse(lock: RunLock, folder: Path, say: Callable[[str], None]) -> None:
    """Take the lock of a process that is gone as soon as what it had started is; refuse any other."""
    holder = lock.holder()
    if holder is not None and holder.gone:
        say(f"{_words(holder)} has ended; waiting for what it had started to end, too")
        if lock.acquire(patience=_REMAINS):
            return
        raise StageError(
            f"{folder}: what {_words(holder)} had started still runs there. End it (`fuser {lock.path}` names it) and "
            "give the same command again."
        )
    elsewhere = holder is not None and holder.host != socket.gethostname()
    stale = f" If that machine or process is gone for good, remove {lock.path}." if elsewhere else ""
    raise StageError(
        f"{folder} is in use by {_words(holder)}, and two runs would remove each other's files. Wait until it "
        f"has ended (--wait does), or give this one a folder of its own with --variant NAME.{stale}"
    )


def _wait(lock: RunLock, folder: Path, say: Callable[[str], None]) -> None:
    say(f"{folder} is in use by {_words(lock.holder())}; waiting for it to end")
    while not lock.acquire(patience=1.0):
        pass
