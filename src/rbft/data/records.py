"""One labelled video of a data set, and the checks on what a data set's files say about it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from rbft.errors import DataError

Split = Literal["train", "val", "test"]

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What data sets call their splits (in lower case), and what they are called here."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(file|concat|data|pipe):", re.IGNORECASE)
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes; what file systems take
_PART = re.compile(r"#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One labelled video.

    Args:
        id: Unique in the data set; formats use the path where the data set has no ids of its own.
        path: path of the video file, relative to the data root, with forward slashes.
        label: Name of its class, as the data set spells it.
        split: Where the data set itself puts the video; None if it says nothing.
        group: What videos of one source (camera, person, uploaded film) share; a group never crosses splits.
            None: the video stands alone.
        text: What people wrote about the video (a description, a reason), by name. Never part of a prompt unless a
            person asks for it.
        part: Seconds of the video that the record is about, start and end; None: all of it.
    """

    id: str
    path: str
    label: str
    split: Split | None = None
    group: str | None = None
    text: Mapping[str, str] = field(default_factory=dict, hash=False)
    part: tuple[float, float] | None = None

    @property
    def video(self) -> str:
        """The path, with the part after it where there is one; see `part_name`."""
        return part_name(self.path, self.part)

    @property
    def source(self) -> tuple[str, str]:
        """What must stay on one side: a video without a group is one by itself, and parts of one file are together."""
        if self.group is not None:
            return "group", self.group
        return ("id", self.id) if self.part is None else ("file", self.path)


def part_name(path: str, part: tuple[float, float] | None) -> str:
    """A video or a part of it in one text: `a.mp4#t=10,20.5` is from 10 to 20.5 s (W3C, Media Fragments URI 1.0)."""
    return path if part is None else f"{path}#t={part[0]:.10g},{part[1]:.10g}"


def split_part(name: str) -> tuple[str, tuple[float, float] | None]:
    """The path and the part that `part_name` put together."""
    match = _PART.search(name)
    return (name, None) if match is None else (name[: match.start()], (float(match[1]), float(match[2])))


def overlap(first: VideoRecord, other: VideoRecord) -> bool:
    """Whether two records show some of the same seconds of one file."""
    if first.path != other.path:
        return False
    (start, end), (begin, stop) = (record.part or (0.0, math.inf) for record in (first, other))
    return start < stop and begin < end


def relative_path(text: str, where: str, root: str = "the data root") -> str:
    """Check a path that a data set's file states, and write it in one way (no `./`, no doubled slashes).

    Args:
        text: The path as stated.
        where: The file and row that state it, for the message.
        root: What it is relative to, for the message.

    Raises:
        DataError: The path could lead out of the data root, or is no portable file name.
    """
    trouble = _path_trouble(text)
    if trouble:
        raise DataError(f"{where}: the path {_shown(text)!r} {trouble}. Write it relative to {root}, with '/'.")
    return str(PurePosixPath(text))


def found_path(file: Path, root: Path) -> str:
    """The path of a file that was found on the disk, as a data set's file would state it.

    Args:
        file: the file.
        root: folder that the path is relative to, above the file.

    Raises:
        DataError: No data set's file could state it.
    """
    text = file.relative_to(root).as_posix()
    if trouble := _path_trouble(text):
        raise DataError(
            f"{root}: the path {_shown(text)!r} {trouble}, so that no table could list it. Rename the file, or the "
            "folder that is called so."
        )
    return text


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _path_trouble(text: str) -> str | None:
    if not text.strip():
        return "is empty"
    if any(unicodedata.category(char) == "Cc" for char in text):
        return "holds a control character"
    if any(unicodedata.category(char) == "Cs" for char in text):
        return "is not valid UTF-8"
    if "\\" in text:
        return "holds a backslash"
    if _URL.match(text):
        return "is a URL"
    if text.startswith("/"):
        return "is absolute"
    if text.startswith("~"):
        return "begins with '~', which stands for a home folder"
    if _DRIVE.match(text):
        return "begins like a drive of Windows"
    parts = PurePosixPath(text).parts
    if ".." in parts:
        return "leads out of its folder ('..')"
    if not parts:
        return "names no file"
    if max(len(part.encode()) for part in parts) > _LONGEST_NAME or len(text.encode()) > _LONGEST_PATH:
        return "is longer than a file name can be"
    return None


def parse_split(text: str, where: str) -> Split | None:
    """The split a data set's file states by one of its usual names; None for an empty cell.

    Raises:
        DataError: It is none of the usual names; says where and which there are.
    """
    name = text.strip().casefold()
    if not name:
        return None
    if name not in SPLIT_NAMES:
        raise DataError(f"{where}: the split {text!r} is unknown; use one of {', '.join(SPLIT_NAMES)}.")
    return SPLIT_NAMES[name]


def check_unique(records: Iterable[VideoRecord]) -> None:
    """Refuse records that share an id, or a file of which they are not different parts.

    Raises:
        DataError: Names the id or path and both records.
    """
    ids: dict[str, VideoRecord] = {}
    paths: dict[str, VideoRecord] = {}
    files: dict[str, VideoRecord] = {}
    wholes: dict[str, VideoRecord] = {}
    for record in records:
        if other := ids.get(record.id):
            raise DataError(f"the id {record.id!r} stands for both {other.path} and {record.path}; ids must be unique.")
        other = paths.get(record.video) or wholes.get(record.path)
        if other or (record.part is None and record.path in files):
            other = other or files[record.path]
            raise DataError(
                f"{record.video} is listed twice, as {other.id!r} ({other.label}) and {record.id!r} ({record.label}); "
                "keep one of them."
            )
        ids[record.id] = paths[record.video] = files[record.path] = record
        if record.part is None:
            wholes[record.path] = record
