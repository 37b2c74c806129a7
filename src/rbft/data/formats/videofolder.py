"""Hugging Face's VideoFolder: videos beside a metadata file that names them."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.columns import ColumnFormat, require_some
from rbft.data.formats.on_disk import require_folder, require_on_disk, visible
from rbft.data.formats.rows import inside, read_table
from rbft.data.records import SPLIT_NAMES, Split, VideoRecord
from rbft.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")
"""Names of the file beside the videos."""


class VideoFolder(ColumnFormat):
    """`metadata.csv` or `metadata.jsonl` in the root, or one in each split folder (train, validation, test).

    Paths in it are relative to the folder it lies in. One in the root that lacks the columns counts as one about other
    things where split folders have theirs. Without such a file the layout is that of ClassFolders.

    Args:
        path_column: Names the video file.
        label_column: Names the class.
        split_column: Only for a metadata file in the root; "auto" takes a column `split` if there is one, None ignores
            it.
        group_column: Holds what videos of one source share; "auto" takes a column `group` if there is one, None
            ignores it.
        text_columns: Columns to keep as human text.
        frame_rate: Frames a second of folders of numbered images, each of which is a video, for rows that do not say
            it themselves.
        rate_column: Holds the frames a second of such a folder; "auto" takes a column `fps` if there is one, None
            ignores it.
        skip_unlabelled: Whether rows with an empty label are left out, as of metadata in which not all clips have one
            yet; otherwise such a row is refused.
    """

    def __init__(
        self,
        path_column: str = "file_name",
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

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the metadata.

        Raises:
            DataError: There is no metadata file, or a column, cell or video is missing or wrong.
        """
        require_folder(root)
        folders = [path for path in visible(root) if path.is_dir() and path.name.casefold() in SPLIT_NAMES]
        tables: list[tuple[Path, Split | None]] = [(path, None) for path in _metadata(root)]
        if not tables or not self._names_labels(root, tables[0][0]):
            of_splits = [
                (path, SPLIT_NAMES[folder.name.casefold()]) for folder in folders for path in _metadata(folder)
            ]
            tables = [*of_splits] or tables
        if not tables:
            raise DataError(
                f"{root} holds no {' or '.join(METADATA)}, nor do its split folders; for videos in a folder for each "
                "class use the format ClassFolders."
            )
        records = []
        for path, split in tables:
            folder = path.parent.relative_to(root).as_posix()
            rows = read_table(inside(root, path))
            records += [record for _, record in self.records(root, rows, "" if folder == "." else folder, split)]
        require_some(records, root)
        require_on_disk(root, records, str(root))
        return records

    def _names_labels(self, root: Path, table: Path) -> bool:
        """Whether a metadata file has the columns of paths and classes; one about other things need not."""
        columns = {name.casefold() for name in read_table(inside(root, table))[0].names}
        return {self.path_column.casefold(), self.label_column.casefold()} <= columns


def _metadata(folder: Path) -> list[Path]:
    files = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(files) > 1:
        raise DataError(f"{folder} holds both {' and '.join(METADATA)}; keep one.")
    return files
