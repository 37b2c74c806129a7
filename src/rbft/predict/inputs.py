"""Which videos a person means: a file, all in a folder, or the rows of a table, none of which leads out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rbft.data.formats.columns import optional_column, part_columns, paths_column, row_part, with_rate
from rbft.data.formats.on_disk import no_video, videos_below
from rbft.data.formats.rows import TABLE_SUFFIXES, read_table
from rbft.data.records import part_name, relative_path
from rbft.errors import DataError, VideoError
from rbft.files import expanded
from rbft.video.container import resolve_inside
from rbft.video.image_sequence import sequence_name, split_rate


@dataclass(frozen=True)
class VideoInput:
    """A video to answer.

    Args:
        name: name of the video in the answer.
        path: The file, absolute or relative to `root`.
        root: The folder the file has to lie in, links followed; None: the person named this very file.
        problem: Why it must not be opened, as a clause; empty where nothing speaks against it.
        part: start and end, in seconds, of the part that is asked about; None for all of it.
    """

    name: str
    path: str
    root: Path | None = None
    problem: str = ""
    part: tuple[float, float] | None = None

    def resolve(self) -> Path:
        """The file, with links followed.

        Raises:
            VideoError: It must not be opened, lies outside of its root, or is no regular file.
        """
        if self.problem:
            raise VideoError(self.name, self.problem)
        try:
            return resolve_inside(self.root, self.path)
        except VideoError as error:
            raise VideoError(self.name, error.reason) from error


def named(video: str | Path) -> VideoInput:
    """A video that a person named, wherever it is."""
    return VideoInput(str(video), str(expanded(video)))


def expand(path: str | Path, frame_rate: float | None = None) -> list[VideoInput]:
    """The videos that a path stands for: itself, all in a folder, or the rows of a table.

    A row of a table that no video may be read by is an input with a problem, so that the other rows are answered.

    Args:
        path: the path.
        frame_rate: frames a second of folders of numbered images, each of which then is a video.

    Raises:
        DataError: It does not exist, a folder holds no video, or a table cannot be read or has no column of paths.
    """
    path = Path(path)
    if path.is_dir():
        files = videos_below(path, frame_rate)
        if frame_rate is not None and files == [Path(sequence_name(str(path), frame_rate))]:
            return [VideoInput(str(path), str(files[0]))]
        if not files:
            raise DataError(f"{path} {no_video(path)}.")
        return [VideoInput(split_rate(str(file))[0], str(file.relative_to(path)), path) for file in files]
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return [named(path)]
    inputs = []
    rows = read_table(path)
    column = paths_column(rows[0].names, rows[0].header)
    times, rate_column = part_columns(rows), optional_column("auto", "fps", rows)
    for row in rows:
        stated, problem, part = row.text(column), "", None
        name = str(path.parent / stated)
        try:
            relative_path(stated, row.where, "the table's folder")
            part = row_part(row, times)
            name = part_name(name, part)
            stated = with_rate(path.parent, stated, row, rate_column, frame_rate)
        except DataError as error:
            problem = str(error)
        inputs.append(VideoInput(name, stated, path.parent, problem, part))
    return inputs
