"""The video files of a data set: walking its folders, finding a clip by its name, and telling which are missing."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rbft.data.records import VideoRecord, relative_path
from rbft.errors import DataError, printable

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".3gp"})
"""What counts as a video file, by lower-case extension."""

MissingPolicy = Literal["error", "drop"]
_SHOWN = 5


def require_folder(root: Path) -> None:
    """Refuse a data root that is not a folder.

    Raises:
        DataError: Names it.
    """
    if not root.is_dir():
        raise DataError(f"the data root {root} is no folder; set the path of the data set.")


def is_video(name: str) -> bool:
    """Whether a file name has a video's extension."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files and the folders macOS puts into archives."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder, sorted; linked folders are followed, each at most once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


class VideoIndex:
    """Finds a clip by its file name, wherever below a folder it lies and whatever its container.

    Args:
        root: The data root.
        folder: Where to look, relative to the root; empty looks everywhere.

    Raises:
        DataError: The folder does not exist.
    """

    def __init__(self, root: Path, folder: str = "") -> None:
        require_folder(root)
        self._top = root / relative_path(folder, "the folder of the videos") if folder else root
        if not self._top.is_dir():
            raise DataError(f"the folder of the videos {self._top} does not exist; put them there, or set `videos`.")
        self._by_name: dict[str, list[str]] = {}
        for path in walk(self._top):
            if is_video(path.name):
                stated = path.relative_to(root).as_posix()
                self._by_name.setdefault(path.stem.casefold(), []).append(relative_path(stated, str(self._top)))

    def find(self, name: str, prefer: str | None = None) -> str | None:
        """The path of a clip relative to the data root, None if there is none.

        Args:
            name: File name without extension; upper and lower case are the same.
            prefer: The end of the path to take where several files have that name.

        Raises:
            DataError: Several files have that name.
        """
        found = self._by_name.get(name.casefold(), [])
        if len(found) > 1 and prefer:
            found = [path for path in found if f"/{path}".endswith(f"/{prefer}")] or found
        if len(found) > 1:
            raise DataError(
                f"{self._top}: {found[0]} and {found[1]} could both be the clip {name!r}; "
                "remove one, or set `videos` to the folder that holds the right ones."
            )
        return found[0] if found else None


def report_missing(missing: Sequence[tuple[str, str]], listed: int, source: str, policy: MissingPolicy) -> None:
    """Say which listed clips are not on disk.

    Args:
        missing: (clip, label) of each.
        listed: How many clips the data set lists.
        source: The file that lists them.
        policy: `error` refuses; `drop` warns with the number of each class.

    Raises:
        DataError: Clips are missing and the policy is `error`; names the first five.
    """
    if not missing:
        return
    if policy == "error" or len(missing) == listed:
        names = ", ".join(name for name, _ in missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        raise DataError(
            f"{source}: {len(missing)} of {listed} listed videos are not on disk ({names}{more}). "
            "Put them under the data root, or take them off the list."
        )
    counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(label for _, label in missing).items()))
    warnings.warn(
        f"{source}: {len(missing)} of {listed} listed videos are not on disk and are left out, by class: "
        f"{printable(counts)}. Results are not comparable with those on the whole data set.",
        stacklevel=4,
    )


def require_on_disk(root: Path, records: Sequence[VideoRecord], source: str) -> None:
    """Refuse records whose file does not exist.

    Raises:
        DataError: Names the first five and the number.
    """
    require_folder(root)
    missing = [(record.path, record.label) for record in records if not (root / record.path).is_file()]
    report_missing(missing, len(records), source, "error")


def warn_if_not_official(where: str, listed: Mapping[str, int], official: Mapping[str, int]) -> None:
    """Say that lists do not hold as many videos as the official ones: cut short, edited, or of another release.

    Args:
        where: The lists, for the message.
        listed: Videos by split.
        official: The same of the official lists.
    """
    if dict(listed) != dict(official):
        told = ", ".join(
            f"{listed.get(side, 0):,} {side} videos (official: {count:,})" for side, count in official.items()
        )
        warnings.warn(f"{where}: {told}; results cannot stand beside published ones.", stacklevel=2)
