"""A folder of whole, never changing files up to a number of bytes, which any number of processes may fill at once."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rbft.errors import warn
from rbft.files import write_atomic

T = TypeVar("T")

_SHARE = 16
_ABANDONED_SECONDS = 3600.0
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

_said: set[tuple[str, Path]] = set()  # warnings of this process, each given once a folder


class DamagedEntryError(Exception):
    """An entry is not as it was written; the message says in what."""


@dataclass(frozen=True)
class Wording:
    """How a folder speaks of what it keeps.

    Args:
        name: name of the folder, for a person.
        contents: name of the entries' kind.
        redone: What happens to a video without an entry, as a participle.
        size_key: The setting that bounds the folder.
        switch_key: The setting that does without it.
    """

    name: str
    contents: str
    redone: str
    size_key: str
    switch_key: str


class BoundedFolder:
    """Entries by key, each whole or not there.

    Nothing here fails for want of the folder: whatever keeps it from working is said once in a warning, and the caller
    makes what it could have read.

    Args:
        folder: folder of the entries; made with the first entry, for its owner alone.
        suffix: suffix of the entries' names; files with other names are left alone.
        max_bytes: Nothing more is stored when the entries would exceed this together. With many processes the last
            entry of each may come on top.
        wording: words for warnings.
    """

    def __init__(self, folder: Path, suffix: str, max_bytes: int, wording: Wording) -> None:
        self.folder, self.suffix, self.max_bytes = folder, suffix, max_bytes
        self._wording = wording
        self._allowance = 0
        self._storing = True

    def entry(self, key: str) -> Path:
        """Where the entry of a key is, or would be."""
        return self.folder / f"{key}{self.suffix}"

    def load(self, key: str, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of an entry; None if it is not there, or damaged, and then removed.

        Args:
            key: key of the entry.
            read: Takes the entry's path; raises `DamagedEntryError` if the content is not what was stored under `key`.
        """
        entry = self.entry(key)
        try:
            try:
                return read(entry)
            except DamagedEntryError as error:
                entry.unlink(missing_ok=True)
                self._say_once(
                    "damaged",
                    f"{entry} is damaged ({error}); it was removed and the video {self._wording.redone} again.",
                )
        except _NOT_THERE:
            pass
        except OSError as error:
            self._say_once("unreadable", f"it cannot be read ({error}), so videos are {self._wording.redone} instead.")
        return None

    def store(self, key: str, pack: Callable[[], bytes]) -> None:
        """Write an entry, unless there is one already.

        Args:
            key: key of the entry.
            pack: Makes its content; not called where nothing is stored.
        """
        if not self._storing:
            return
        entry = self.entry(key)
        try:
            if entry.exists():  # another process was faster
                return
            data = pack()
            _make_private(self.folder)
            if self._has_room(len(data)):
                write_atomic(entry, data)
        except OSError as error:
            if error.errno in _DISK_FULL:
                self._stop(f"the disk is full ({error}). Make room, or name another folder with data.cache_dir.")
            else:
                self._stop(
                    f"it cannot be written to ({error}). Name another folder with data.cache_dir, or set "
                    f"{self._wording.switch_key} to false."
                )

    def drop(self, key: str) -> None:
        """Remove an entry, if it is there and may be removed."""
        with suppress(OSError):
            self.entry(key).unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes more stay within the bound; says so if not.

        Other processes fill the folder too. So after each look at it this process takes a small share of what is free,
        and looks again when that is used up.
        """
        if size > self._allowance:
            used = self._occupied()
            if used + size > self.max_bytes:
                self._stop(
                    f"it holds {used / 1e9:.3g} GB and its limit is {self.max_bytes / 1e9:.3g} GB. Raise "
                    f"{self._wording.size_key}, or delete the folder if it holds {self._wording.contents} of data sets "
                    "no longer in use."
                )
                return False
            self._allowance = max(size, (self.max_bytes - used) // _SHARE)
        self._allowance -= size
        return True

    def _occupied(self) -> int:
        """Bytes of all entries, finished or being written; what killed processes left unfinished is removed."""
        total = 0
        with os.scandir(self.folder) as files:
            for file in files:
                unfinished = self.suffix in file.name and file.name.endswith(".tmp")
                if not (unfinished or file.name.endswith(self.suffix)):
                    continue
                try:
                    status = file.stat()
                    if unfinished and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                        Path(file.path).unlink()
                        continue
                except FileNotFoundError:  # finished, or removed, by another process
                    continue
                total += status.st_size
        return total

    def _stop(self, why: str) -> None:
        """Stores nothing more in this process; what is stored is still read."""
        self._storing = False
        self._say_once(
            "stopped",
            f"nothing more is stored: {why} Videos that are not in it are {self._wording.redone} every time.",
        )

    def _say_once(self, kind: str, message: str) -> None:
        if (kind, self.folder) not in _said:
            _said.add((kind, self.folder))
            warn(f"{self._wording.name} {self.folder}: {message}")


def _make_private(folder: Path) -> None:
    """Make a folder and all that leads to it for their owner alone; what is there stays as it is."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
