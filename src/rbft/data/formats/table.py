"""A table with one row a video: its path, its class, and what else is known."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.columns import ColumnFormat, require_some
from rbft.data.formats.on_disk import require_on_disk
from rbft.data.formats.rows import annotation_file, read_table
from rbft.data.records import VideoRecord
from rbft.errors import DataError


class Table(ColumnFormat):
    """A .csv, .tsv or .jsonl file in UTF-8 with a header (or keys) that names the columns, or a .parquet file.

    With the columns `start` and `end` a row is about these seconds of its video, and a video may have several rows.

    Args:
        file: Relative to the data root.
        path_column: Path of the video, relative to the data root.
        label_column: Name of the class.
        split_column: Holds train, val or test (or an empty cell); "auto" takes a column `split` if there is one,
            None ignores it.
        group_column: Holds what videos of one source share; "auto" takes a column `group` if there is one, None
            ignores it. A row with an empty cell stands alone.
        text_columns: Columns to keep as human text.
        frame_rate: Frames a second of folders of numbered images, each of which is a video, for rows that do not say
            it themselves.
        rate_column: Holds the frames a second of such a folder; "auto" takes a column `fps` if there is one, None
            ignores it.
        skip_unlabelled: Whether rows with an empty label are left out, as of a table in which not all clips have one
            yet; otherwise such a row is refused.
    """

    def __init__(
        self,
        file: str = "labels.csv",
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = "auto",
        group_column: str | None = "auto",
        text_columns: tuple[str, ...] = (),
        frame_rate: float | None = None,
        rate_column: str | None = "auto",
        skip_unlabelled: bool = False,
    ) -> None:
        super().__init__(
            path_column,
            label_column,
            split_column,
            group_column,
            text_columns,
            frame_rate,
            rate_column,
            skip_unlabelled,
        )
        self.file = file

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the rows.

        Raises:
            DataError: A column, cell or file is missing or wrong, or a path stands in two rows.
        """
        table = annotation_file(root, self.file)
        records: list[VideoRecord] = []
        seen: dict[str, str] = {}
        for row, record in self.records(root, read_table(table)):
            if (other := seen.setdefault(record.video, row.where)) != row.where:
                raise DataError(f"{row.where}: {record.video} is already listed in {other}; keep one of the rows.")
            records.append(record)
        require_some(records, table)
        require_on_disk(root, records, str(table))
        return records
