"""Answering the videos of a folder as they come: which are whole, which are new, and what was answered before."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rbft.data.formats.on_disk import is_video, walk
from rbft.errors import DataError, Interrupted
from rbft.files import append_jsonl, read_jsonl
from rbft.predict.answers import Answer
from rbft.predict.inputs import VideoInput

_BEGIN = b'{"video": '
_AT_ONCE = 8  # files between two looks at whether to stop
_Stamp = tuple[int, int]


class Watcher:
    """Finds the videos of a folder that are new, or were written anew, and are no longer being written.

    A file counts as whole when its size and time have not changed for a while. A slow writer may pause for longer: what
    it leaves then is answered as it is, mostly with an error, and again when it has changed.

    Args:
        folder: folder to look in, folders below it included.
        answered: time of change, in seconds, of each file that was answered before, by name; None: it is not known, and
            the file is left alone.
        quiet: seconds without a change after which a file is whole.
        clock: a clock in seconds, for tests.
    """

    def __init__(
        self,
        folder: Path,
        answered: dict[str, float | None],
        quiet: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._quiet, self._clock = folder, quiet, clock
        self._before = answered
        self._seen: dict[Path, tuple[_Stamp, float]] = {}
        self._done: dict[Path, _Stamp] = {}

    def ready(self) -> list[tuple[VideoInput, float]]:
        """The files to answer now, by name, each with its time of change in seconds."""
        now = self._clock()
        found: list[tuple[VideoInput, float]] = []
        there: dict[Path, tuple[_Stamp, float]] = {}
        for file in walk(self._folder):
            if not is_video(file.name):
                continue
            try:
                status = file.stat()
            except OSError:  # it was taken away, or is a link to nothing that may come yet
                continue
            stamp = (status.st_size, status.st_mtime_ns)
            known = self._seen.get(file)
            since = known[1] if known is not None and known[0] == stamp else now
            there[file] = (stamp, since)
            if now - since < self._quiet or self._done.get(file) == stamp:
                continue
            self._done[file] = stamp
            if not self._answered_before(str(file), status.st_mtime):
                inside = str(file.relative_to(self._folder))
                found.append((VideoInput(str(file), inside, self._folder), status.st_mtime))
        self._seen = there
        return sorted(found, key=lambda pair: pair[0].name)

    def _answered_before(self, name: str, modified: float) -> bool:
        if name not in self._before:
            return False
        time_then = self._before[name]
        # a file that was changed since is another one
        return time_then is None or modified == time_then


def read_answered(path: Path) -> dict[str, float | None]:
    """The files that an earlier watch answered, with their time of change in seconds; None where it was not noted.

    Raises:
        DataError: The file holds something else than answers.
    """
    if not path.is_file():
        return {}
    found: dict[str, float | None] = {}
    for number, row in read_jsonl(path):
        name, modified = row.get("video"), row.get("modified")
        if not isinstance(name, str) or "predicted" not in row:
            raise DataError(f"{path}, line {number}: no answer of rbft predict; name another file with --to.")
        found[name] = float(modified) if isinstance(modified, (int, float)) else None
    # an answer that a kill tore may be all there is
    if not found and not _BEGIN.startswith(path.read_bytes()[: len(_BEGIN)]):
        raise DataError(f"{path}: no answers of rbft predict; name another file with --to, or delete this one.")
    return found


def watch(
    folder: Path,
    answer: Callable[[Sequence[VideoInput]], Sequence[Answer]],
    show: Callable[[Answer], None],
    *,
    to: Path | None,
    every: float,
    begun: Callable[[int], None],
) -> NoReturn:
    """Answer videos as they come, until a signal asks to stop.

    Args:
        folder: folder to watch.
        answer: answers some videos, unreadable ones included.
        show: called with each answer when it is on the disk.
        to: file of JSON lines that answers are appended to; None: they are shown only.
        every: seconds between two looks, and without a change after which a file is whole.
        begun: called with the number of files that were answered before, when the watch begins.

    Raises:
        DataError: There is no such folder, or `to` holds something else.
        StorageError: The disk is full; what was answered before is whole.
        Interrupted: A signal came; the files in work were answered first.
    """
    if not folder.is_dir():
        raise DataError(f"--watch {folder}: there is no such folder; make it first.")
    answered = {} if to is None else read_answered(to)
    watcher = Watcher(folder, answered, every)
    count = 0
    with _stopping() as (stop, signals):
        begun(len(answered))
        while not stop.is_set():
            ready = watcher.ready()
            for start in range(0, len(ready), _AT_ONCE):
                if stop.is_set():
                    break
                some = ready[start : start + _AT_ONCE]
                answers = answer([video for video, _ in some])
                if to is not None:
                    times = [modified for _, modified in some]
                    append_jsonl(to, [a.to_json() | {"modified": t} for a, t in zip(answers, times, strict=True)])
                count += len(answers)
                for each in answers:
                    show(each)
            stop.wait(every)
    said = "1 video was answered" if count == 1 else f"{count} videos were answered"
    where = "" if to is None else f", in {to}"
    raise Interrupted(signals[0], f"stopped; {said}{where}. The same command goes on.")


@contextmanager
def _stopping() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one acts as ever."""
    stop, signals = threading.Event(), []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        signals.append(number)
        stop.set()
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop, signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
