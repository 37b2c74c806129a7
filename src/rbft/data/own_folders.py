"""The folders that rbft itself leaves, told by what lies in them, so that none is taken for a class."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.on_disk import is_video, walk
from rbft.runs.names import CHECK, EXPERIMENT, HEADING

_LEFT = {EXPERIMENT, CHECK, "suggestions.html", "rbft.json"}


def is_own_folder(folder: Path) -> bool:
    """Whether a folder holds runs, suggestions or an export, or what `rbft fit` wrote for clips, and no video."""
    found = False
    for file in walk(folder):
        if is_video(file.name):
            return False
        found = found or file.name in _LEFT or _was_written_for_clips(file)
    return found


def _was_written_for_clips(file: Path) -> bool:
    if file.suffix != ".yaml" or file.stem != file.parent.name:
        return False
    with file.open("rb") as stream:
        return stream.read(len(HEADING)) == HEADING.encode()
