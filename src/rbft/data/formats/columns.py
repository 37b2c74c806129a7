"""Rows of a table as records: what the formats share whose columns a config names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.folder_splits import warn_of_folder_splits
from rbft.data.formats.on_disk import FRAME_RATE_HINT, checked_rate
from rbft.data.formats.rows import Row, find_column, require_column, separator_hint
from rbft.data.records import Split, VideoRecord, parse_split, part_name, relative_path
from rbft.errors import ConfigError, DataError, warn
from rbft.video.image_sequence import sequence_name

PATH_COLUMNS = ("path", "file", "file_name", "filename", "video", "video_path", "clip")
"""Usual names of a column of paths; the first that a table has is taken."""
LABEL_COLUMNS = ("label", "class", "category", "target", "action")
"""Usual names of a column of classes; the first that a table has is taken."""

_UNIT = r"(?:time|timestamp|s|secs?|seconds?|ms|frames?)"
_BEGINS, _ENDS = (
    re.compile(rf"(?:{words})[ _-]?{_UNIT}|{_UNIT}[ _-]?(?:{words})|{alone}", re.IGNORECASE)
    for words, alone in (("start|begin", "onset"), ("end|stop", "offset"))
)
"""Names of columns that together seem to say which part of a video is meant."""
_A_TIME = re.compile(r"\d+(?::\d+)*(?:[.,]\d*)?")


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
        frame_rate: frames a second of folders of numbered images, for rows that do not say it themselves.
        rate_column: column with the frames a second of such a folder; "auto" takes a column `fps` if there is one, None
            ignores it.
        skip_unlabelled: whether rows with an empty label are left out; otherwise such a row is refused.
    """

    def __init__(
        self,
        path_column: str,
        label_column: str,
        split_column: str | None,
        group_column: str | None,
        text_columns: tuple[str, ...],
        frame_rate: float | None,
        rate_column: str | None,
        skip_unlabelled: bool,
    ) -> None:
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        self.text_columns = tuple(text_columns)
        self.frame_rate = checked_rate(frame_rate)
        self.rate_column = rate_column
        self.skip_unlabelled = skip_unlabelled

    def records(
        self, root: Path, rows: Sequence[Row], folder: str = "", split: Split | None = None
    ) -> list[tuple[Row, VideoRecord]]:
        """Each row with the record it gives, without those that are left out for want of a label.

        Args:
            root: the data root.
            rows: rows of a table, at least one.
            folder: folder that its paths are relative to, below the data root; empty for the root.
            split: split of all rows, in place of the one that a column names.

        Raises:
            DataError: a column or cell is missing or wrong.
        """
        columns, header = rows[0].names, rows[0].header
        path_column = find_column(self.path_column, columns, header, "path_column")
        label_column = find_column(self.label_column, columns, header, "label_column")
        split_column = optional_column(self.split_column, "split", rows) if split is None else None
        group_column = optional_column(self.group_column, "group", rows)
        times = part_columns(rows)
        rate_column = optional_column(self.rate_column, "fps", rows)
        records = []
        for row in rows:
            if self.skip_unlabelled and not row.text(label_column):
                continue
            stated = relative_path(row.filled(path_column), row.where)
            path = f"{folder}/{stated}" if folder else stated
            part = row_part(row, times)
            record = VideoRecord(
                id=part_name(path, part),
                path=with_rate(root, path, row, rate_column, self.frame_rate),
                label=row.filled(label_column),
                split=parse_split(row.text(split_column), row.where) if split_column else split,
                group=(row.text(group_column) or None) if group_column else None,
                text={column: row.text(column) for column in self.text_columns},
                part=part,
            )
            records.append((row, record))
        if split is None and self.split_column == "auto" and split_column is None:
            warn_of_folder_splits(
                header,
                [record for _, record in records],
                "Name the split of each row in a column `split`, or set data.format.split_column to null.",
            )
        return records


def require_some(records: Sequence[VideoRecord], where: Path) -> None:
    """Refuse a table of which all rows were left out.

    Raises:
        DataError: There is no record.
    """
    if not records:
        raise DataError(f"{where}: no row has a label yet; `rbft label` shows the clips one after the other.")


def with_rate(root: Path, path: str, row: Row, column: str | None, rate: float | None) -> str:
    """The path that a row states: a folder of images with its frame rate, all else as it is.

    Args:
        root: folder that the path is relative to.
        path: the path.
        row: the row, for messages.
        column: column with the frames a second; None where there is none.
        rate: frames a second where the row does not say it; None where nobody does.

    Raises:
        DataError: Of a folder no frame rate is said, or none that is a number above 0.
    """
    if not (root / path).is_dir():
        return path
    if column is not None and (text := row.text(column)):
        try:
            rate = checked_rate(float(text), column)
        except (ValueError, ConfigError) as error:
            raise DataError(
                f"{row.where}: {column!r} must be the frames a second of the images, such as 25; found {text!r}."
            ) from error
    if rate is None:
        raise DataError(f"{row.where}: {path} is a folder; {FRAME_RATE_HINT}, here or in a column fps.")
    return sequence_name(path, rate)


def part_columns(rows: Sequence[Row]) -> tuple[str, str] | None:
    """The columns `start` and `end`, where the table has both; None where it has neither.

    Columns that seem to hold times under other names are warned of, as whole videos are taken then.

    Raises:
        DataError: The table has one of the two alone, and it holds times; other words under such a name are no times.
    """
    start, end = (optional_column("auto", name, rows) for name in ("start", "end"))
    if start is not None and end is not None:
        return start, end
    there, missing = (start, "end") if end is None else (end, "start")
    if there is not None and any(_A_TIME.fullmatch(str(row.cells.get(there)).strip()) for row in rows):
        raise DataError(
            f"{rows[0].header}: there is a column {there!r} and none {missing!r}. A part of a video is told by both, "
            f"in seconds; add {missing!r}, or rename {there!r} if it means something else."
        )
    begins, ends = ([name for name in rows[0].names if pattern.fullmatch(name)] for pattern in (_BEGINS, _ENDS))
    if begins and ends:
        warn(
            f"{rows[0].header}: whole videos are taken, whatever {begins[0]!r} and {ends[0]!r} may say. Seconds of a "
            "part stand in the columns 'start' and 'end'.",
        )
    return None


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


def usual_column(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column that has the first of some usual names, whatever its case; None where there is none.

    Args:
        columns: columns of a table.
        usual: names in lower case, of which earlier ones go first.
    """
    for name in usual:
        alike = [column for column in columns if column.casefold() == name]
        if alike:
            return name if name in alike else alike[0]
    return None


def paths_column(columns: Sequence[str], where: str) -> str:
    """The column of paths of a table that names videos and needs no labels.

    Args:
        columns: its columns.
        where: File, or file and row, that names them.

    Raises:
        DataError: None has a usual name; lists the columns.
    """
    if (found := usual_column(columns, PATH_COLUMNS)) is not None:
        return found
    listed = ", ".join(map(repr, columns))
    advice = separator_hint(columns) or f" Call it path ({', '.join(PATH_COLUMNS[1:])} are known, too)."
    raise DataError(f"{where}: no column of it is known to hold paths (columns: {listed}).{advice}")


def optional_column(setting: str | None, usual: str, rows: Sequence[Row]) -> str | None:
    """The column to read: the one that is set; for "auto" the usual one if some row has it; None for None.

    Raises:
        DataError: A column is set that the table does not have.
    """
    if setting == "auto":
        columns = rows[0].names
        alike = [name for name in columns if name.casefold() == usual]
        return usual if usual in columns else alike[0] if len(alike) == 1 else None
    if setting is not None:
        require_column(setting, rows[0].names, rows[0].header)
    return setting
