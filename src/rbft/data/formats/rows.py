"""Reading annotation files (csv, tsv, jsonl, json, txt) so that every complaint can name file and row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rbft.data.formats.parquet import read_parquet
from rbft.data.records import relative_path
from rbft.errors import DataError
from rbft.files import NOT_JSON, plain_cell

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Kinds of tables, by lower-case extension."""


@dataclass(frozen=True)
class Row:
    """One row of an annotation file.

    Args:
        where: File and row number, counted as an editor does: the first line is row 1.
        cells: values by column.
        header: File and row that name the columns: the table's first, or the row itself where each row names its own.
        columns: columns of the whole table, of which a row that names its own may lack some; empty: those of the row.
    """

    where: str
    cells: dict[str, Any]
    header: str
    columns: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the table, as far as they are known."""
        return self.columns or tuple(self.cells)

    def text(self, column: str) -> str:
        """The text of a cell, without the white space around it.

        A number is written out as a table of text would hold it: 1 is "1" and 1.0 is "1.0". What is missing, null and
        not a number, is empty, and so is a column that only other rows of the table have.

        Raises:
            DataError: There is no such column, or the value is no text.
        """
        require_column(column, self.names, self.header)
        value = self.cells.get(column)
        if value is None or value != value:
            return ""
        if isinstance(value, (int, float)):
            return str(value)
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {column!r} must be text, found {value!r}.")
        return value.strip()

    def filled(self, column: str) -> str:
        """As `text`, but never empty."""
        if not (text := self.text(column)):
            raise DataError(f"{self.where}: {column!r} is empty; fill it in or delete the row.")
        return text


def find_column(column: str, columns: Sequence[str], where: str, setting: str) -> str:
    """The column of a name, or the only one that is written like it but for the case.

    Args:
        column: The name.
        columns: Those there are.
        where: File and row that name them.
        setting: setting of the format, by which another column can be named.

    Raises:
        DataError: There is none; lists the columns and says how to name another.
    """
    alike = [name for name in columns if name.casefold() == column.casefold()]
    if column in columns or len(alike) != 1:
        require_column(column, columns, where, setting)
        return column
    return alike[0]


def require_column(column: str, columns: Sequence[str], where: str, setting: str = "") -> None:
    """Refuse a column that is not there.

    Raises:
        DataError: Lists the columns there are and the nearest.
    """
    if column in columns:
        return
    near = get_close_matches(column, columns, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    hint += f" Name another with --data.format.{setting} COLUMN." if setting else ""
    hint = separator_hint(columns) or hint
    raise DataError(f"{where}: there is no column {column!r}; the columns are {', '.join(map(repr, columns))}.{hint}")


def separator_hint(columns: Sequence[str]) -> str:
    """What to say where the names of columns are one cell, as another character separates them; else empty."""
    if len(columns) != 1 or not any(mark in columns[0] for mark in ",;\t"):
        return ""
    return " The cells seem to be separated by another character: .csv means commas, .tsv means tabs."


def annotation_file(root: Path, name: str) -> Path:
    """The path of an annotation file below the data root.

    Raises:
        DataError: It does not exist, or the name or a link leads out of the root.
    """
    path = root / relative_path(name, f"annotation file of {root}")
    if not path.is_file():
        raise DataError(f"{path} does not exist. Put the data set's file there, or set its name in the data format.")
    return inside(root, path)


def inside(root: Path, path: Path) -> Path:
    """`path` as it is, if it lies below the data root with links followed.

    An error in an annotation file quotes its content, so that one of another folder must not be
    read at all.

    Raises:
        DataError: A link leads out of the root.
    """
    if not (target := path.resolve()).is_relative_to(root.resolve()):
        raise DataError(
            f"{path} leads to {target}, outside of the data root {root}; put it below the data root itself."
        )
    return path


def read_text(path: Path) -> str:
    """The content of a UTF-8 file without its byte order mark.

    Raises:
        DataError: It is not UTF-8; names the line.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, row {line}: not UTF-8; save the file as UTF-8.") from error


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a text file that hold something, each as (file and row, line without outer white space)."""
    return [(f"{path}, row {number}", line.strip()) for number, line in _lines(path) if line.strip()]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Unlike str.splitlines this breaks at line ends alone: text in a cell may hold form feeds and the like.
    return enumerate(read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is not JSON; names the row.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, row {error.lineno}: not valid JSON ({error.msg}).") from error
    except NOT_JSON as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error


def read_json_objects(path: Path, *, wrapped: bool = False) -> list[Row]:
    """The objects of a .json list or of a .jsonl file; in a .json file `where` counts the list's items.

    Args:
        path: the file.
        wrapped: whether the list may stand in an object, as its only list of objects.

    Raises:
        DataError: The file is not JSON, or holds something other than objects.
    """
    if path.suffix == ".jsonl":
        return list(_jsonl_rows(path))
    content = read_json(path)
    if wrapped and isinstance(content, dict) and not {"conversations", "messages"} & set(content):
        lists = [
            nested for nested in content.values() if isinstance(nested, list) and nested and isinstance(nested[0], dict)
        ]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, found {type(content).__name__}.")
    return [_object(item, f"{path}, item {number}") for number, item in enumerate(content, start=1)]


def read_table(path: Path) -> list[Row]:
    """Read a .csv, .tsv, .jsonl or .parquet file; blank lines are skipped.

    Raises:
        ConfigError: A .parquet file is to be read, and pyarrow is not installed.
        DataError: Another extension, no rows, a row with too many or too few cells, or a column name that stands twice.
    """
    readers = {".csv": ",", ".tsv": "\t"}
    if path.suffix.lower() == ".jsonl":
        rows = list(_jsonl_rows(path))
        columns = tuple(dict.fromkeys(name for row in rows for name in row.cells))
        rows = [replace(row, columns=columns) for row in rows]
    elif path.suffix.lower() in readers:
        rows = list(_csv_rows(path, readers[path.suffix.lower()]))
    elif path.suffix.lower() == ".parquet":
        # no line names its columns: rows are counted from 1
        rows = [Row(f"{path}, row {n}", cells, str(path)) for n, cells in enumerate(read_parquet(path), start=1)]
    else:
        raise DataError(f"{path}: unknown kind of table {path.suffix!r}; use {', '.join(TABLE_SUFFIXES)}.")
    if not rows:
        raise DataError(f"{path} lists no videos.")
    return rows


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader((f"{line}\n" for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    named = ""
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}, row {start}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header, named = [cell.strip() for cell in cells], where
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    raise DataError(f"{where}: the column {twice[0]!r} stands twice; rename one of them.")
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} cells, but the header has {len(header)}; "
                    "put text that holds the separator in double quotes."
                )
            else:
                yield Row(
                    where, {name: plain_cell(cell) for name, cell in zip(header, cells, strict=True) if name}, named
                )
    except csv.Error as error:
        raise DataError(f"{path}, row {start}: {error}; check the double quotes there.") from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            item = json.loads(line)
        except NOT_JSON as error:
            raise DataError(f"{where}: not valid JSON ({getattr(error, 'msg', error)}).") from error
        yield _object(item, where)


def _object(item: object, where: str) -> Row:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(item).__name__}.")
    return Row(where, item, where)
