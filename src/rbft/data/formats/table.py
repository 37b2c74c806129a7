"""A table with one row a video: its path, its class, and what else is known."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.on_disk import require_on_disk
from rbft.data.formats.rows import Row, annotation_file, read_table, require_column
from rbft.data.records import VideoRecord, parse_split, relative_path
from rbft.errors import DataError


class Table(DatasetFormat):
    """A .csv, .tsv or .jsonl file in UTF-8, with a header (or keys) that names the columns.

    Args:
        file: Relative to the data root.
        path_column: Path of the video, relative to the data root.
        label_column: Name of the class.
        split_column: Holds train, val or test (or an empty cell); "auto" takes a column `split` if there is one,
            None ignores it.
        group_column: Holds what videos of one source share; "auto" takes a column `group` if there is one, None
            ignores it. A row with an empty cell stands alone.
        text_columns: Columns to keep as human text.
    """

    def __init__(
        self,
        file: str = "labels.csv",
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = "auto",
        group_column: str | None = "auto",
        text_columns: tuple[str, ...] = (),
    ) -> None:
        self.file = file
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        self.text_columns = tuple(text_columns)

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the rows.

        Raises:
            DataError: A column, cell or file is missing or wrong, or a path stands in two rows.
        """
        table = annotation_file(root, self.file)
        rows = read_table(table)
        split_column = optional_column(self.split_column, "split", rows)
        group_column = optional_column(self.group_column, "group", rows)
        records: list[VideoRecord] = []
        seen: dict[str, str] = {}
        for row in rows:
            path = relative_path(row.filled(self.path_column), row.where)
            if (other := seen.setdefault(path, row.where)) != row.where:
                raise DataError(f"{row.where}: {path} is already listed in {other}; keep one of the rows.")
            records.append(
                VideoRecord(
                    id=path,
                    path=path,
                    label=row.filled(self.label_column),
                    split=parse_split(row.text(split_column), row.where) if split_column else None,
                    group=(row.text(group_column) or None) if group_column else None,
                    text={column: row.text(column) for column in self.text_columns},
                )
            )
        require_on_disk(root, records, str(table))
        return records


def optional_column(setting: str | None, usual: str, rows: list[Row]) -> str | None:
    """The column to read: the one that is set; for "auto" the usual one if some row has it; None for None.

    Raises:
        DataError: A column is set that the first row does not have.
    """
    if setting == "auto":
        return usual if any(usual in row.cells for row in rows) else None
    if setting is not None:
        require_column(setting, tuple(rows[0].cells), rows[0].header)
    return setting
