"""Kinetics-400, 600 and 700 (Kay et al. 2017) from their official csv files."""

from __future__ import annotations

from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import MissingPolicy, VideoIndex
from rbft.data.formats.rows import Row, annotation_file, read_table
from rbft.data.records import Split, VideoRecord
from rbft.errors import DataError


class Kinetics(DatasetFormat):
    """Tables with the columns label, youtube_id, time_start, time_end.

    A clip is the file `<youtube_id>_<start>_<end>`, both in seconds with six digits, or `<youtube_id>` where only one
    clip was cut from a video. A group is a YouTube video. Which split a clip is in is said by the file it is listed in,
    not by the column `split`: results are reported on the validation file, which is the test split here unless set
    otherwise.

    Args:
        train: Table of the training clips, relative to the data root.
        val: list for validation; None leaves validation to the splits that are made.
        test: list for testing.
        videos: Folder below which the clips lie; empty looks everywhere below the root.
        missing: Listed clips that are not on disk (videos vanish from YouTube): `error`, or `drop` with a warning that
            counts them by class.
    """

    def __init__(
        self,
        train: str = "train.csv",
        val: str | None = None,
        test: str | None = "val.csv",
        videos: str = "",
        missing: MissingPolicy = "error",
    ) -> None:
        self.lists: tuple[tuple[Split, str | None], ...] = (("train", train), ("val", val), ("test", test))
        self.videos = videos
        self.missing = missing

    def read(self, root: Path) -> list[VideoRecord]:
        """The clips in the order of the tables.

        Raises:
            DataError: A table is missing or wrong, or a clip is not on disk.
        """
        index = VideoIndex(root, self.videos)
        clips = ListedClips()
        for side, file in self.lists:
            if file is None:
                continue
            for row in read_table(annotation_file(root, file)):
                video, label = row.filled("youtube_id"), row.filled("label")
                clip = f"{video}_{_seconds(row, 'time_start'):06d}_{_seconds(row, 'time_end'):06d}"
                clips.add(clip, label, index.find(clip) or index.find(video), side, group=video)
        return clips.on_disk(str(root), self.missing)


def _seconds(row: Row, column: str) -> int:
    text = row.filled(column)
    try:
        return int(float(text))
    except ValueError as error:
        raise DataError(f"{row.where}: {column!r} must be a number of seconds, found {text!r}.") from error
