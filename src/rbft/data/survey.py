"""Looks at every video of a data set once, on all cores, and remembers what it found by the files' content."""

from __future__ import annotations

import faulthandler
import importlib.metadata
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

from rbft.data.video_facts import VideoFacts, inspect_video, time_up
from rbft.errors import ConfigError, DataError, VideoError, warn
from rbft.files import append_jsonl, read_jsonl
from rbft.video.clip_prefetch import ClipRequest
from rbft.video.container import DEFAULT_LIMITS, Limits, resolve_inside
from rbft.video.content import content_bytes, content_digest, content_status

CACHE_FILE = "video_facts.jsonl"
#: Of the facts: raise it with any change to what they say of the same file. Another media library may decode otherwise.
SCHEMA = f"4, av {importlib.metadata.version('av')}"

_SAVE_SECONDS = 5.0
_REPORT_SECONDS = 10.0
_GRACE_SECONDS = 5.0
_FILES_A_WORKER = 4  # with fewer, starting a process costs more than it saves

Task = Callable[[str, Path, str, float], VideoFacts]
_Job = tuple[str, str]  # path and digest


def survey(
    root: Path,
    paths: Iterable[str],
    *,
    cache: Path,
    console: Console,
    workers: int | None = None,
    time_limit: float = 300.0,
    requests: Sequence[ClipRequest] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, VideoFacts]:
    """What is true of every video; only files that no earlier survey saw are decoded.

    A file that takes too long or crashes the media library costs its own process alone and is reported (`gave_up`);
    that is not remembered, as another machine may do better.

    Args:
        root: The data root; nothing outside of it is read.
        paths: The videos, relative to `root`.
        cache: Folder that remembers the facts; several processes may share it.
        console: Shows a progress bar on a terminal, plain lines elsewhere.
        workers: Decoding processes of one thread each; None: one a core. With 1, this process decodes, which neither
            survives a crash of the media library nor interrupts it within a packet.
        time_limit: Seconds a video may take.
        requests: Clips that will be read from every video; those that are decoded now leave them in the clip cache.
        limits: what a video may cost.

    Returns:
        The facts by path, in the order of `paths`.

    Raises:
        ConfigError: `workers` is below 1.
        DataError: Processes cannot be started, or the cache is damaged.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: {workers} must be at least 1; leave it out for one a core.")
    wanted = list(dict.fromkeys(paths))
    if not wanted:  # a stage over the videos of another: what is remembered of all is not read for none
        return {}
    remembered = _Memory(cache / CACHE_FILE, limits)
    facts: dict[str, VideoFacts] = {}
    jobs: list[_Job] = []
    for path in wanted:
        known = remembered.look_up(root, path)
        if isinstance(known, VideoFacts):
            facts[path] = known
        else:
            jobs.append((path, known))
    processes = min(_cores() if workers is None else workers, -(-len(jobs) // _FILES_A_WORKER))
    task: Task = partial(inspect_video, requests=tuple(requests), limits=limits)
    if processes > 1:
        surveyed = decode_in_processes(root, jobs, processes, time_limit, task)
    else:
        surveyed = (task(path, root, digest, time_limit) for path, digest in jobs)
    try:
        for video in _show_progress(surveyed, len(jobs), console):
            facts[video.path] = video
            remembered.add(root, video)
    finally:
        remembered.save()
    return {path: facts[path] for path in wanted}


def _cores() -> int:
    """Cores this process may use; not every system can say so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_in_processes(
    root: Path, jobs: Sequence[_Job], workers: int, time_limit: float, task: Task = inspect_video
) -> Iterator[VideoFacts]:
    """The facts of many videos in the order in which they are found; on a file that kills its process it gives up.

    Args:
        root: The data root.
        jobs: Paths with digests.
        workers: Processes.
        time_limit: Seconds a video may take.
        task: What a process does with a video.

    Raises:
        DataError: Processes cannot be started.
    """
    waiting = deque(jobs)
    while waiting:
        running: dict[Future[VideoFacts], _Job] = {}
        pool = _start_pool(min(workers, len(waiting)))
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    path, digest = waiting[0]
                    future = pool.submit(_guarded, task, path, root, digest, time_limit)
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    yield result
        except BrokenProcessPool:
            pass  # one of those that were running did it: each gets a process of its own below
        finally:
            pool.shutdown(cancel_futures=True)
        for path, digest in running.values():
            yield _alone(task, path, root, digest, time_limit)


def _alone(task: Task, path: str, root: Path, digest: str, time_limit: float) -> VideoFacts:
    pool = _start_pool(1)
    started = time.monotonic()
    try:
        return pool.submit(_guarded, task, path, root, digest, time_limit).result()
    except BrokenProcessPool:
        slow = time.monotonic() - started > time_limit
        reason = time_up(time_limit) if slow else "crashes the media library, or needs more memory than there is"
        return VideoFacts(path, "gave_up", reason, content_bytes(root / path), digest)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a fork would copy the threads and locks of whatever the caller has loaded
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent)
    try:
        # a process that cannot start must not be mistaken for a video that kills it
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        pool.shutdown()
        raise DataError(
            "no process for decoding videos can be started (in a script, the call must stand below "
            '`if __name__ == "__main__":`). Decode in this process instead: 1 worker.'
        ) from error
    return pool


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _guarded(task: Task, path: str, root: Path, digest: str, time_limit: float) -> VideoFacts:
    """Run a task in a process that ends itself if the media library does not come back."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(time_limit + _GRACE_SECONDS, exit=True, file=nowhere)
        try:
            return task(path, root, digest, time_limit)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _show_progress(surveyed: Iterator[VideoFacts], total: int, console: Console) -> Iterator[VideoFacts]:
    reported = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("decoding videos", total=total)
        for number, facts in enumerate(surveyed, start=1):
            yield facts
            progress.advance(bar)
            if not console.is_terminal and time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                console.print(f"decoding videos: {number} of {total}")


class _Memory:
    """Facts on disk, by content; a file that did not change since is not even read again.

    Args:
        file: JSON Lines, appended to under a lock; a later row replaces an earlier one.
        limits: what a video may cost; facts found under others are not of these.
    """

    def __init__(self, file: Path, limits: Limits) -> None:
        self._file = file
        self._schema = SCHEMA if limits == DEFAULT_LIMITS else f"{SCHEMA}, {limits}"
        self._lock = FileLock(file.with_name(f"{file.name}.lock"))
        self._by_content: dict[str, dict[str, Any]] = {}
        self._by_status: dict[str, tuple[list[int], str]] = {}
        self._looked_up: dict[tuple[Path, str], tuple[str, list[int]]] = {}
        self._unsaved: list[dict[str, Any]] = []
        self._saved = time.monotonic()
        self._storing = True
        for number, row in self._stored():
            if row.get("schema") != self._schema:
                continue
            try:
                VideoFacts(path=row["file"], **row["facts"])
                self._learn(row)
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{file}, line {number}: holds no facts of a video. Delete that line.") from error

    def _stored(self) -> list[tuple[int, dict[str, Any]]]:
        """What is on disk; nothing where the folder cannot be used, which is no reason not to look at the videos."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if not self._file.exists():
                return []
            with self._lock:
                return list(read_jsonl(self._file))
        except OSError as error:
            self._do_without(error)
            return []

    def _do_without(self, error: OSError) -> None:
        self._storing = False
        warn(
            f"facts about videos cannot be kept in {self._file.parent} ({error.strerror or error}), so they "
            "are decoded again next time. Make room or name another folder with data.cache_dir.",
        )

    def look_up(self, root: Path, path: str) -> VideoFacts | str:
        """The facts of a file, or its digest if they are unknown."""
        try:
            file = resolve_inside(root, path)
        except VideoError as error:
            return VideoFacts(path, "missing", error.reason)
        try:
            status = content_status(file)
            self._looked_up[root, path] = str(file), status
            seen, digest = self._by_status.get(str(file), (None, ""))
            unmoved = seen == status
            if not unmoved:
                digest = content_digest(file)
        except VideoError as error:
            return VideoFacts(path, "unreadable", error.reason)
        except OSError as error:
            return VideoFacts(path, "unreadable", f"cannot be opened: {error.strerror}")
        known = self._by_content.get(_content_key(path, digest))
        if known is None:
            return digest
        facts = VideoFacts(path=path, **known)
        if not unmoved:
            self.add(root, facts)
        return facts

    def add(self, root: Path, facts: VideoFacts) -> None:
        """Remember the facts of a file that was looked up; they are on disk a few seconds later, or after `save`."""
        if facts.problem == "gave_up":
            return
        file, status = self._looked_up[root, facts.path]
        known = facts.to_json()
        del known["path"]
        row = {"schema": self._schema, "file": file, "status": status, "facts": known}
        self._learn(row)
        self._unsaved.append(row)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        if self._unsaved and self._storing:
            try:
                with self._lock:
                    append_jsonl(self._file, self._unsaved)
            except OSError as error:
                self._do_without(error)
        self._unsaved = []
        self._saved = time.monotonic()

    def _learn(self, row: dict[str, Any]) -> None:
        facts = row["facts"]
        self._by_content[_content_key(row["file"], facts["digest"])] = facts
        self._by_status[row["file"]] = (row["status"], facts["digest"])


def _content_key(path: str, digest: str) -> str:
    """The suffix is part of it: it helps the media library to guess the format of raw streams."""
    return digest + Path(path).suffix.lower()
