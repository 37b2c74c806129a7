"""The tables in a folder of clips: which list labels, which are passed over, and which are refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbft.data.formats.columns import LABEL_COLUMNS, PATH_COLUMNS, usual_column
from rbft.data.formats.on_disk import visible
from rbft.data.formats.rows import TABLE_SUFFIXES, Row, read_table
from rbft.data.labels import names_split
from rbft.data.own_tables import is_own
from rbft.data.records import SPLIT_NAMES, Split
from rbft.errors import DataError
from rbft.starter.label_lists import ClipNames, is_called_labels, look_at

# words of names of columns that say what several clips may share
_SOURCES = frozenset(
    ["group", "scene", "person", "people", "subject", "patient", "participant", "actor", "camera", "session", "site"]
)
Settings = Mapping[str, Any]
"""What a person said of the data set format, by name."""


@dataclass
class Tables:
    """Files of a folder.

    Args:
        usable: tables that name clips and classes, with these columns.
        refused: files that look like lists of labels and cannot be read as they are, with the whole reason.
        passed: files that name clips and are not read.
    """

    usable: dict[Path, tuple[str, str]] = field(default_factory=dict)
    refused: dict[Path, str] = field(default_factory=dict)
    passed: list[Path] = field(default_factory=list)

    def require_understood(self) -> None:
        """Refuse the first list of labels that is not understood.

        Raises:
            DataError: There is one; says why, and what to do.
        """
        # of several lists that must be named themselves, the one to name is that which trains
        for path in sorted(self.refused, key=lambda path: side_of(path) in ("val", "test")):
            raise DataError(self.refused[path])

    def notes(self) -> tuple[str, ...]:
        """What is not read although it lies beside the clips, in a sentence; empty where there is nothing."""
        names = ", ".join(path.name for path in sorted((*self.refused, *self.passed)))
        return (f"not read: {names}",) if names else ()


def sort_tables(files: Iterable[Path], said: Settings, clips: ClipNames) -> Tables:
    """Tell which of some files list the labels of clips.

    Args:
        files: files beside clips, tables and others.
        said: settings, of which `path_column` and `label_column` name columns.
        clips: names of the clips.

    Raises:
        ConfigError: A .parquet file is to be read, and pyarrow is not installed.
    """
    found = Tables()
    later = []
    for path in files:
        # features and the like are often kept in this form beside the table
        if path.suffix.lower() == ".parquet":
            later.append(path)
        else:
            _sort(path, said, clips, found)
    for path in later if not found.usable else ():
        _sort(path, said, clips, found)
    return found


def _sort(path: Path, said: Settings, clips: ClipNames, found: Tables) -> None:
    trouble = ""
    if path.suffix.lower() in TABLE_SUFFIXES:
        try:
            names = read_table(path)[0].names
        except DataError as error:
            trouble = str(error)
        else:
            columns = known_columns(names, said)
            if is_own(names):
                if columns is not None:
                    found.passed.append(path)
                return
            if columns is not None:
                found.usable[path] = columns
                return
    look = look_at(path, clips)
    if look.lists_labels and look.fault and (look.names_clips or not trouble):
        found.refused[path] = (
            f"{path} looks like a list of labels, but {look.fault}. To go by the folders alone, say "
            "--data.format ClassFolders; a file that lists no labels can lie elsewhere."
        )
    elif trouble and (look.lists_labels or is_called_labels(path)):
        found.refused[path] = trouble
    elif look.names_clips:
        found.passed.append(path)


def known_columns(names: tuple[str, ...], said: Settings) -> tuple[str, str] | None:
    """The columns that hold paths and classes, whatever their case; None where one of them is not known.

    Args:
        names: columns of a table.
        said: settings, of which `path_column` and `label_column` name columns.
    """
    usual = {"path_column": PATH_COLUMNS, "label_column": LABEL_COLUMNS}
    path, label = (
        usual_column(names, (str(said[key]).casefold(),) if key in said else columns) for key, columns in usual.items()
    )
    return None if path is None or label is None else (path, label)


def other_columns(rows: Sequence[Row], columns: tuple[str, str], said: Settings) -> tuple[str, ...]:
    """What to know of columns that seem to state splits, groups or names of classes and are not read; a clause each.

    Args:
        rows: rows of a table.
        columns: columns of paths and classes.
        said: settings, of which `split_column` and `group_column` name columns.
    """
    names = [name for name in rows[0].names if name not in columns]
    values = {name: [row.cells.get(name) for row in rows] for name in names}
    cells = {name: ["" if value is None else str(value).strip() for value in column] for name, column in values.items()}
    known = {name.casefold() for name in names}
    notes = []
    labels = [row.text(columns[1]) for row in rows]
    if all(map(_is_number, labels)):
        for name, texts in cells.items():
            # a name for each number and a number for each name
            pairs = {*zip(labels, texts, strict=True)}
            if len(pairs) == len({*labels}) == len({*texts}) > 1 and not any(map(_is_number, texts)):
                notes.append(
                    f"the classes are the numbers of {columns[1]!r}; the column {name!r} seems to name them: "
                    f"--data.format.label_column {shlex.quote(name)} takes it"
                )
    if "split_column" not in said and "split" not in known:
        for name, texts in cells.items():
            sides = {SPLIT_NAMES.get(text.casefold()) for text in texts if text}
            if len(sides) > 1 and None not in sides:
                notes.append(
                    f"the column {name!r} seems to state splits and is not read: --data.format.split_column "
                    f"{shlex.quote(name)} takes it"
                )
    if "group_column" not in said and "group" not in known:
        for name, texts in cells.items():
            shared = 1 < len({*texts}) < len(texts)
            if shared and _SOURCES & {*re.split(r"[\W_]+", name.casefold())}:
                notes.append(
                    f"the column {name!r} may say which clips belong together and is not read: "
                    f"--data.format.group_column {shlex.quote(name)} keeps them on one side of the test"
                )
    return tuple(notes)


def _is_number(text: str) -> bool:
    """Whether a cell is a whole number, or empty."""
    return not text or re.fullmatch(r"\d+(\.0)?", text) is not None


def side_of(path: Path) -> Split | None:
    """The split that a list is of by its name, such as `test_set.txt`; None where it names none."""
    stem = path.stem.casefold()
    return next((side for word, side in SPLIT_NAMES.items() if stem.startswith(word) and names_split(stem)), None)


def lists_beside(path: Path, settings: Settings, *, is_table: bool) -> str:
    """What to know of lists of other splits that lie beside a list and are not read with it; empty for nothing.

    Args:
        path: table or list that was named.
        settings: settings with which it is read.
        is_table: whether it is a table; else a list of which each split has one of its own.
    """
    clips = ClipNames(path.parent)
    others = [
        entry
        for entry in visible(path.parent)
        if entry != path
        and entry.suffix.lower() == path.suffix.lower()
        and side_of(entry) not in (None, side_of(path))
        and entry.name not in settings.values()
        and look_at(entry, clips).names_clips
    ]
    if not others:
        return ""
    note = f"not read: {', '.join(entry.name for entry in others)}"
    if is_table:
        return f"{note}; one table with a column split holds the clips of all splits"
    by_side = {side_of(entry): entry for entry in (path, *others)}
    flags = " ".join(
        f"--data.format.{side} {shlex.quote(entry.name)}" for side, entry in by_side.items() if side in ("val", "test")
    )
    if "train" in by_side and flags:
        note += f"; to take each list for its split, say {shlex.quote(str(by_side['train']))} {flags}"
    return note
