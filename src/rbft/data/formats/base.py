"""What a data set format is: a reader of a data set's own files that gives records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from rbft.data.records import VideoRecord


class DatasetFormat(ABC):
    """Reads a data set's official files into records; holds no videos.

    The init arguments of a format are what a config may set.
    """

    frame_rate: float | None = None
    """Frames a second of folders of numbered images, each of which is a video; None: they are none."""

    def prepare(self, root: Path) -> None:  # noqa: B027 - most formats have nothing to make
        """Make the data set's files if the format can generate them; otherwise do nothing."""

    @abstractmethod
    def read(self, root: Path) -> list[VideoRecord]:
        """The videos of the data set, in the order its files list them.

        Raises:
            DataError: A file is missing or wrong; names file, row and what to do.
        """

    def label_names(self, root: Path) -> tuple[str, ...] | None:
        """The classes in the order the data set states, or None if it states none."""
        return None
