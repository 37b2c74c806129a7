"""Listed paths that differ from a file on the disk in spelling alone, or in the folders or the suffix they lack."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from rbft.video.image_sequence import split_rate


def hint_of_spelling(root: Path, paths: Sequence[str], is_video: Callable[[str], bool]) -> str:
    """What to do where a listed path is on the disk but for its spelling.

    Args:
        root: folder that the paths are relative to.
        paths: paths that are not there.
        is_video: tells by a file's name whether it is a video.

    Returns:
        A sentence about the first such path, with a space before it; empty where there is none.
    """
    for path in (split_rate(path)[0] for path in paths):
        found = _spelled_otherwise(root, path)
        if found is None:
            continue
        if found.casefold() == path.casefold():
            return f" {path} is called {found} there: write its letters in the same case."
        return (
            f" {path} is there with its accents in another form of Unicode (letter and accent as one sign, or as two): "
            "rename the file, or copy its name from a listing of the folder."
        )
    for path in paths[:1]:
        found = _longer(root, path, is_video)
        if found is not None:
            return f" {path} is there as {found}: paths are relative to {root}, and end in the file's suffix."
    return ""


def _longer(root: Path, path: str, is_video: Callable[[str], bool]) -> str | None:
    """A video below the root whose path has fewer folders in front than one that is not there, or more, or a suffix.

    None where several have.
    """
    for place in range(1, len(parts := PurePosixPath(path).parts)):
        shorter = "/".join(parts[place:])
        if is_video(parts[-1]) and (root / shorter).is_file():
            return shorter
    found: list[str] = []
    stated = f"/{path}"
    for folder, _, files in os.walk(root):
        for name in filter(is_video, files):
            relative = Path(folder, name).relative_to(root).as_posix()
            if f"/{relative}".endswith(stated) or f"/{relative.rpartition('.')[0]}".endswith(stated):
                found.append(relative)
    return found[0] if len(found) == 1 else None


def _spelled_otherwise(root: Path, path: str) -> str | None:
    """The only file or folder below the root whose name reads as a path that is not there; None if there is no such."""
    place = root
    for name in PurePosixPath(path).parts:
        if not (place / name).exists():
            alike = (
                [entry.name for entry in place.iterdir() if _read(entry.name) == _read(name)] if place.is_dir() else []
            )
            if len(alike) != 1:
                return None
            name = alike[0]
        place = place / name
    found = place.relative_to(root).as_posix()
    return None if found == path else found


def _read(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
