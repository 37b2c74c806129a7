"""Rows of a table as records: what the formats share whose columns a config names."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.rows import Row, find_column, require_column
from rbft.data.records import Split, VideoRecord, parse_split, part_name, relative_path
from rbft.errors import DataError


class ColumnFormat(DatasetFormat):
    """A format of tables with one row a video, or a part of one: seconds in the columns `start` and `end`.

    Args:
        path_column: column with the path of the video.
        label_column: column with the name of the class.
        split_column: column with train, val or test (or an empty cell); "auto" takes a column `split` if there is one,
            None ignores it.
        group_column: column with what videos of one source share; "auto" takes a column `group` if there is one, None
            ignores it. A row with an empty cell stands alone.
        text_columns: columns to keep as human text.
    """

    def __init__(
        self,
        path_column: str,
        label_column: str,
        split_column: str | None,
        group_column: str | None,
        text_columns: tuple[str, ...],
    ) -> None:
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        self.text_columns = tuple(text_columns)

    def records(
        self, rows: Sequence[Row], folder: str = "", split: Split | None = None
    ) -> list[tuple[Row, VideoRecord]]:
        """Each row with the record it gives.

        Args:
            rows: rows of a table, at least one.
            folder: folder that its paths are relative to, below the data root; empty for the root.
            split: split of all rows, in place of the one that a column names.

        Raises:
            DataError: a column or cell is missing or wrong.
        """
        columns, header = tuple(rows[0].cells), rows[0].header
        path_column = find_column(self.path_column, columns, header, "path_column")
        label_column = find_column(self.label_column, columns, header, "label_column")
        split_column = optional_column(self.split_column, "split", rows) if split is None else None
        group_column = optional_column(self.group_column, "group", rows)
        times = part_columns(rows)
        records = []
        for row in rows:
            stated = relative_path(row.filled(path_column), row.where)
            path = f"{folder}/{stated}" if folder else stated
            part = row_part(row, times)
            record = VideoRecord(
                id=part_name(path, part),
                path=path,
                label=row.filled(label_column),
                split=parse_split(row.text(split_column), row.where) if split_column else split,
                group=(row.text(group_column) or None) if group_column else None,
                text={column: row.text(column) for column in self.text_columns},
                part=part,
            )
            records.append((row, record))
        return records


def part_columns(rows: Sequence[Row]) -> tuple[str, str] | None:
    """The columns `start` and `end`, where the table has both; None where it has not."""
    start, end = (optional_column("auto", name, rows) for name in ("start", "end"))
    return None if start is None or end is None else (start, end)


def row_part(row: Row, columns: tuple[str, str] | None) -> tuple[float, float] | None:
    """Start and end, in seconds, of the part of a video that a row is about; None for all of it, where both are empty.

    Raises:
        DataError: They are no numbers, or the end is not after the start.
    """
    if columns is None:
        return None
    cells = [row.cells.get(column) for column in columns]
    # not a number is how other tools write that a number is missing
    if all(cell is None or cell != cell or str(cell).strip() == "" for cell in cells):
        return None
    try:
        start, end = (float(str(cell)) for cell in cells)
    except ValueError:
        start, end = 0.0, 0.0
    if not 0 <= start < end < math.inf:
        raise DataError(
            f"{row.where}: {columns[0]!r} and {columns[1]!r} must be seconds of the video, the end after the start, "
            f"such as 10 and 12.5; found {cells[0]!r} and {cells[1]!r}. Both empty means the whole video; "
            "rename the columns if they mean something else."
        )
    return start, end


def optional_column(setting: str | None, usual: str, rows: Sequence[Row]) -> str | None:
    """The column to read: the one that is set; for "auto" the usual one if some row has it; None for None.

    Raises:
        DataError: A column is set that the first row does not have.
    """
    if setting == "auto":
        columns = dict.fromkeys(name for row in rows for name in row.cells)
        alike = [name for name in columns if name.casefold() == usual]
        return usual if usual in columns else alike[0] if len(alike) == 1 else None
    if setting is not None:
        require_column(setting, tuple(rows[0].cells), rows[0].header)
    return setting
