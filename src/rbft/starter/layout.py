"""How the labels of some clips are listed, recognised from what a person names: a folder, a table or a list."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbft.data.formats import ClassFolders, Conversations, DatasetFormat, MMAction, Table, VideoFolder
from rbft.data.formats.columns import LABEL_COLUMNS, PATH_COLUMNS, usual_column
from rbft.data.formats.on_disk import is_video, sequences_below, visible, walk
from rbft.data.formats.rows import TABLE_SUFFIXES, Row, read_table
from rbft.data.own_tables import columns_of, is_own
from rbft.data.records import VideoRecord
from rbft.errors import DataError

_LEAST_CLIPS = 2  # of a class: one to train on and one to test


@dataclass(frozen=True)
class Layout:
    """Labelled clips and how they are listed.

    Args:
        root: Data root.
        format: Name of the data set format.
        settings: Settings of the format that are not its defaults.
        records: The clips.
        description: What was recognised, in a clause.
    """

    root: Path
    format: str
    records: tuple[VideoRecord, ...]
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> dict[str, int]:
        """Number of clips by class, sorted by name."""
        return dict(sorted(Counter(record.label for record in self.records).items()))

    @property
    def suggested_groups(self) -> dict[str, int]:
        """Number of clips by the first word of their file names, where it may be a person or a camera; else empty.

        It is offered where every clip begins with a word and a number, several clips of more than one class share it,
        and no groups are stated.
        """
        if any(record.group for record in self.records):
            return {}
        words = [re.match(r"([A-Za-z]+\d+)[_\-. ]", Path(record.path).name) for record in self.records]
        names = [word.group(1) for word in words if word is not None]
        counts = Counter(names)
        classes = {(name, record.label) for name, record in zip(names, self.records, strict=False)}
        shared = Counter(name for name, _ in classes)
        whole = len(names) == len(self.records) and 2 <= len(counts) <= len(names) // 2
        return dict(sorted(counts.items())) if whole and max(shared.values()) > 1 else {}


def recognise(path: Path, frame_rate: float | None = None) -> Layout:
    """Find out how labelled clips are listed.

    Args:
        path: A folder with a folder for each class, a folder with a table, a table, or a list of conversations or of
            MMAction.
        frame_rate: Frames a second of folders of numbered images, each of which then is a clip.

    Raises:
        DataError: Nothing is recognised, or there are too few clips or classes; says what was found and what to do.
    """
    if path.is_dir():
        layout = _folder(path, frame_rate)
    elif path.is_file():
        layout = _file(path, frame_rate)
    else:
        raise DataError(f"{path}: there is no such folder or file. Name a folder of clips, or a table of them.")
    _require_enough(path, layout)
    return layout


def _folder(root: Path, rate: float | None) -> Layout:
    entries = visible(root)
    names = {entry.name for entry in entries if entry.is_file()}
    if metadata := sorted({"metadata.csv", "metadata.jsonl"} & names):
        return _read(root, VideoFolder(frame_rate=rate), _rated(rate), f"a folder of videos with {metadata[0]}")
    tables = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in TABLE_SUFFIXES]
    readable = _readable([table for table in tables if table.suffix.lower() != ".parquet"])
    # features and the like are often kept in this form beside the table
    readable = readable or _readable([table for table in tables if table.suffix.lower() == ".parquet"])
    if len(readable) > 1:
        listed = ", ".join(table.name for table, _ in readable)
        raise DataError(f"{root} holds several tables of clips ({listed}); name the one to use.")
    if readable:
        return _table(*readable[0], rate)
    folders = [entry for entry in entries if entry.is_dir()]
    sequences = any(sequences_below(folder) for folder in folders)
    if any(is_video(file.name) for folder in folders for file in walk(folder)) or (sequences and rate is not None):
        return _read(root, ClassFolders(frame_rate=rate), _rated(rate), "a folder for each class")
    if sequences:
        raise DataError(
            f"{root} holds folders of numbered images. Say their frames a second, and each is taken for a clip: "
            "--data.format.frame_rate 25"
        )
    loose = sum(is_video(name) for name in names)
    if loose:
        raise DataError(
            f"{root} holds {loose} videos and nothing that says their classes. Give them classes with "
            f"`rbft label {shlex.quote(str(root))}`, move them into a folder for each class, or write "
            f"{root / 'labels.csv'} with the columns path,label."
        )
    entries_found = ", ".join(entry.name for entry in entries[:5]) or "nothing"
    raise DataError(f"{root} holds no videos (found {entries_found}). Name the folder that holds your clips.")


def _file(path: Path, rate: float | None) -> Layout:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES and (columns := _columns(path)) is not None:
        return _table(path, columns, rate)
    if suffix in (".json", ".jsonl"):
        return _read(path.parent, Conversations(train=path.name), {"train": path.name}, "a list of conversations")
    if suffix == ".txt":
        return _read(
            path.parent,
            MMAction(train=path.name, frame_rate=rate),
            {"train": path.name} | _rated(rate),
            "a list of paths and class numbers",
        )
    if suffix in TABLE_SUFFIXES:
        header = ", ".join(map(repr, read_table(path)[0].names))
        raise DataError(
            f"{path}: no column of it is known to hold paths and classes (columns: {header}). "
            f"Call them path and label, or say --data.format Table --data.format.path_column and --data.format."
            "label_column with an experiment file."
        )
    raise DataError(
        f"{path}: no table ({', '.join(TABLE_SUFFIXES)}) and no list (.json, .txt) of clips, and no folder."
    )


def _readable(tables: Sequence[Path]) -> list[tuple[Path, tuple[str, str]]]:
    """A person's tables that name clips and classes, with these columns."""
    return [
        (table, columns)
        for table in tables
        if (columns := _columns(table)) is not None and not is_own(columns_of(table))
    ]


def _columns(table: Path) -> tuple[str, str] | None:
    """The columns that hold paths and classes, whatever their case; None where there are none."""
    rows: Sequence[Row] = read_table(table)
    path, label = (usual_column(rows[0].names, usual) for usual in (PATH_COLUMNS, LABEL_COLUMNS))
    return None if path is None or label is None else (path, label)


def _rated(rate: float | None) -> dict[str, float]:
    return {} if rate is None else {"frame_rate": rate}


def _table(table: Path, columns: tuple[str, str], rate: float | None) -> Layout:
    defaults = {"file": "labels.csv", "path_column": "path", "label_column": "label"}
    said = {"file": table.name, "path_column": columns[0], "label_column": columns[1]}
    settings = {key: value for key, value in said.items() if value != defaults[key]} | _rated(rate)
    empty = sum(not row.text(columns[1]) for row in read_table(table))
    if empty:
        settings |= {"skip_unlabelled": True}
    format = Table(
        table.name, path_column=columns[0], label_column=columns[1], frame_rate=rate, skip_unlabelled=bool(empty)
    )
    rest = f" ({empty} rows without a label are left out; `rbft label` shows them)" if empty else ""
    return _read(table.parent, format, settings, f"the table {table.name}{rest}")


def _read(root: Path, format: DatasetFormat, settings: Mapping[str, Any], description: str) -> Layout:
    return Layout(root, type(format).__name__, tuple(format.read(root)), description, dict(settings))


def _require_enough(path: Path, layout: Layout) -> None:
    classes = layout.classes
    if len(classes) < 2:
        only = next(iter(classes), "none")
        raise DataError(
            f"{path}: {len(layout.records)} clips of one class ({only!r}); a classifier needs at least two. Add clips "
            "of what the class is not."
        )
    few = {name: count for name, count in classes.items() if count < _LEAST_CLIPS}
    if few:
        listed = ", ".join(f"{name!r} {count}" for name, count in few.items())
        raise DataError(
            f"{path}: too few clips of {listed}; each class needs at least {_LEAST_CLIPS}, to train and to test. Add "
            "clips of it, or leave it out."
        )
