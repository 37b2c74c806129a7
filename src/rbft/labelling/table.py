"""A table of labels that is written whole after every change, with everything else that stands in it kept."""

from __future__ import annotations

import codecs
import csv
import io
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from rbft.data.formats.columns import (
    LABEL_COLUMNS,
    optional_column,
    part_columns,
    paths_column,
    row_part,
    usual_column,
    with_rate,
)
from rbft.data.formats.rows import Row, read_table, read_text
from rbft.data.records import relative_path
from rbft.errors import DataError
from rbft.files import guarded_cell, plain_cell, write_atomic, write_csv, write_jsonl

Part = tuple[float, float] | None
TABLES = (".csv", ".tsv", ".jsonl")
"""Suffixes of tables that can be written."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Labelled:
    """A row of the table.

    Args:
        path: path of the video, relative to the table's folder.
        part: seconds of the video; None: all of it.
        label: class; empty where there is none yet.
        split: split that the row is to state; empty for none.
    """

    path: str
    part: Part
    label: str
    split: str = ""


@dataclass
class _Content:
    """A table as it stands on the disk.

    Args:
        columns: names of the columns, in order.
        rows: cells by column, as they stand in the file.
        parts: (path, part) of each row.
        path_column: column with the path.
        label_column: column with the class.
        times: columns with start and end; None where there are none.
        is_json: whether rows are objects, which need not have all columns.
        marked: whether the file begins with a byte order mark, by which spreadsheets know UTF-8.
        line_end: what ends a row of it.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    parts: list[tuple[str, Part]]
    path_column: str
    label_column: str
    times: tuple[str, str] | None
    is_json: bool
    marked: bool = False
    line_end: str = "\n"

    def label_of(self, row: dict[str, Any]) -> str:
        """Class of a row; empty where it has none."""
        cell = _cell(row.get(self.label_column))
        return (cell if self.is_json else plain_cell(cell)).strip()

    def as_written(self, cell: str) -> str:
        """A cell as it is to stand in the file."""
        return cell if self.is_json else guarded_cell(cell)


class LabelTable:
    """The labels of a folder's clips, in a .csv, .tsv or .jsonl file that `rbft fit` reads.

    Each change reads the file, changes one row and writes the file whole, so that another program's changes are kept
    and a killed process loses nothing that was answered. Before the first change of a session the file is copied to
    `<name>.old-<n>`.

    Args:
        path: file of the table; it need not be there yet.
        begin: rows that a new table begins with.
        frame_rate: frames a second of folders of numbered images, for rows that do not say it themselves; such a clip
            is known by its folder and rate, as `kitchen_01#fps=25`.

    Raises:
        DataError: The file cannot be read, or its columns do not say what is a path.
    """

    def __init__(self, path: Path, begin: Sequence[Labelled] = (), frame_rate: float | None = None) -> None:
        if path.suffix.lower() not in TABLES:
            raise DataError(f"{path}: labels are written to a .csv, .tsv or .jsonl file; name one with --table.")
        self.path = path
        self._begin, self._frame_rate = tuple(begin), frame_rate
        self._copied = False
        self._added: set[tuple[str, Part]] = set()
        self._lock = threading.Lock()
        self.read()

    def read(self) -> list[Labelled]:
        """The rows as they are now.

        Raises:
            DataError: As for the class.
        """
        content = self._content()
        return [
            Labelled(path, part, content.label_of(row))
            for row, (path, part) in zip(content.rows, content.parts, strict=True)
        ]

    def set(self, path: str, part: Part, label: str) -> None:
        """Give a clip a label, or take it off with an empty one; the file is on the disk when this returns.

        Args:
            path: path of the video, relative to the table's folder.
            part: seconds of the video; None: all of it.
            label: class; empty: none.

        Raises:
            DataError: The file cannot be read any more.
            StorageError: The disk is full; the file is as it was.
        """
        with self._lock, FileLock(self.path.with_name(f".{self.path.name}.lock")):
            content = self._content()
            places = [place for place, found in enumerate(content.parts) if found == (path, part)]
            if places:
                row = content.rows[places[0]]
                row[content.label_column] = content.as_written(label)
                # a row that was there before is a clip on a person's list, with a label or without
                if not label and (path, part) in self._added and not _says_more(row, content):
                    del content.rows[places[0]]
            elif label:
                content.rows.append(_new_row(Labelled(path, part, label), content))
                self._added.add((path, part))
            self._keep_old()
            self._write(content)

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".jsonl"

    def _keep_old(self) -> None:
        """Copy the file as it was before this session, once."""
        if self._copied or not self.path.exists():
            self._copied = True
            return
        number = 1
        while (copy := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        # a copy, not a rename: there is a table at every moment
        write_atomic(copy, self.path.read_bytes())
        copy.chmod(stat.S_IMODE(self.path.stat().st_mode))
        self._copied = True

    def _content(self) -> _Content:
        if not self.path.is_file():
            return self._new()
        columns = _columns(self.path)
        rows = read_table(self.path) if _has_rows(self.path) else []
        if self._is_json:
            columns = list(rows[0].names) if rows else ["path", "label"]
        path_column = paths_column(columns, str(self.path))
        label_column = usual_column(columns, LABEL_COLUMNS)
        if label_column is None:
            label_column = "label"
            columns = [*columns, label_column]
        times, rate_column = (part_columns(rows), optional_column("auto", "fps", rows)) if rows else (None, None)
        parts = []
        for row in rows:
            path = with_rate(self.path.parent, _path(row, path_column), row, rate_column, self._frame_rate)
            parts.append((path, row_part(row, times)))
        seen: set[tuple[str, Part]] = set()
        for row, part in zip(rows, parts, strict=True):
            if part in seen:
                raise DataError(f"{row.where}: the same clip stands in a row above; keep one of the rows.")
            seen.add(part)
        cells = [dict(row.cells) for row in rows] if self._is_json else _cells(self.path, columns)
        raw = self.path.read_bytes()
        marked = raw.startswith(codecs.BOM_UTF8)
        line_end = "\r\n" if raw.partition(b"\n")[0].endswith(b"\r") else "\n"
        return _Content(columns, cells, parts, path_column, label_column, times, self._is_json, marked, line_end)

    def _new(self) -> _Content:
        columns = ["path", "label"]
        times = None
        if any(row.part is not None for row in self._begin):
            columns, times = [*columns, "start", "end"], ("start", "end")
        if any(row.split for row in self._begin):
            columns.append("split")
        content = _Content(columns, [], [], "path", "label", times, self._is_json)
        for row in self._begin:
            content.rows.append(_new_row(row, content))
            content.parts.append((row.path, row.part))
        return content

    def _write(self, content: _Content) -> None:
        # behind a link, the table itself; but nothing outside of the folder is written
        path = self.path.resolve()
        if not path.is_relative_to(self.path.parent.resolve()):
            path = self.path
        if self._is_json:
            write_jsonl(path, content.rows)
            return
        rows = [[_cell(row.get(name)) for name in content.columns] for row in content.rows]
        delimiter = _DELIMITERS[self.path.suffix.lower()]
        # a person's own cells are none of our business: `-5` in another column stays a number
        cells = [content.columns, *rows]
        write_csv(path, cells, delimiter, guard=False, marked=content.marked, line_end=content.line_end)


def _columns(path: Path) -> list[str]:
    """The names in the header of a table; none for .jsonl.

    Raises:
        DataError: A column has no name: its cells would be lost when the table is written.
    """
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        return []
    header = next((cells for cells in csv.reader(io.StringIO(read_text(path)), delimiter=delimiter) if any(cells)), [])
    columns = [cell.strip() for cell in header]
    if not columns or not all(columns):
        raise DataError(
            f"{path}: {'a column has no name' if columns else 'there is no header'}; write it in, or name "
            "another file with --table."
        )
    return columns


def _cells(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table of text, cell by cell as they stand there."""
    # ends of lines as `read_table` takes them, which has found no fault
    text = io.StringIO(read_text(path).replace("\r\n", "\n").replace("\r", "\n"))
    rows = [row for row in csv.reader(text, delimiter=_DELIMITERS[path.suffix.lower()]) if any(map(str.strip, row))]
    return [dict(zip(columns, row, strict=False)) for row in rows[1:]]


def _has_rows(path: Path) -> bool:
    """Whether anything stands below the header; a person may begin with one alone."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    return len(lines) > (0 if path.suffix.lower() == ".jsonl" else 1)


def _path(row: Row, column: str) -> str:
    return relative_path(row.filled(column), row.where, "the table's folder")


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _says_more(row: dict[str, Any], content: _Content) -> bool:
    """Whether a row without a label holds anything that only this table knows."""
    own = {content.path_column, content.label_column}
    return any(_cell(value).strip() for name, value in row.items() if name not in own)


def _new_row(clip: Labelled, content: _Content) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(() if content.is_json else content.columns, "")
    row |= {
        content.path_column: content.as_written(clip.path),
        content.label_column: content.as_written(clip.label),
    }
    if clip.part is not None and content.times is not None:
        row |= dict(zip(content.times, (f"{time:.10g}" for time in clip.part), strict=True))
    if clip.split:
        row["split"] = clip.split
    return row
