"""Lists beside class folders that say more than these, and that must not be left out unseen."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from rbft.data.formats import HMDB51, UCF101, Diving48, SSv2
from rbft.data.formats.on_disk import visible
from rbft.data.own_folders import is_own_folder
from rbft.errors import DataError
from rbft.starter.label_lists import ClipNames
from rbft.starter.tables import Settings, sort_tables

_OFFICIAL = {
    "ucfTrainTestlist": UCF101.__name__,
    "testTrainMulti_7030_splits": HMDB51.__name__,
    "something-something-v2-labels.json": SSv2.__name__,
    "Diving48_vocab.json": Diving48.__name__,
}
"""Formats by a file or folder that published data sets of theirs have."""


def refuse_official(root: Path, said: Settings) -> None:
    """Refuse to go by the names of folders where a published data set has lists of its own.

    Raises:
        DataError: There are some; says how to go by them.
    """
    for name, format in _OFFICIAL.items():
        if (root / name).exists() and name not in (said.get("skip") or ()):
            raise DataError(
                f"{root} holds the lists of a published data set ({name}), which say what tests. "
                f"To go by them, say --data.format {format}; to go by the folders alone, say --data.format ClassFolders"
                + (f" --data.format.skip {name}" if (root / name).is_dir() else "")
            )


def refuse_table_inside(root: Path, folders: Sequence[Path], said: Settings) -> None:
    """Refuse to go by the names of folders where one without videos holds a table of the clips' classes.

    Raises:
        DataError: There is one; says how to go by it, and how by the folders.
    """
    files = [
        entry
        for folder in folders
        if not is_own_folder(folder)
        for entry in visible(folder)
        if entry.is_file() and entry.suffix.lower() != ".parquet"
    ]
    for table in sort_tables(files, said, ClipNames(root)).usable:
        file = table.relative_to(root).as_posix()
        skip = json.dumps([*(said.get("skip") or ()), table.parent.name], ensure_ascii=False)
        raise DataError(
            f"{table} lists classes of clips. To go by it, with paths relative to {root}, say --data.format.file "
            f"{shlex.quote(file)}; to go by the folders alone, say --data.format.skip {shlex.quote(skip)}"
        )
