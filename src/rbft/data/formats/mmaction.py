"""Lists of "path label" lines, as MMAction2 and many repositories of video classification use them."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.on_disk import checked_rate, is_video, require_on_disk
from rbft.data.formats.rows import annotation_file, read_lines, read_text
from rbft.data.records import Split, VideoRecord, relative_path
from rbft.errors import DataError
from rbft.video.image_sequence import count_images, sequence_name


class MMAction(DatasetFormat):
    """One line a video: its path, a separator, and the number of its class, counted from 0.

    With `frame_rate` a line is about a folder of numbered images, and says how many there are: `folder 163 4`, as
    MMAction2's RawframeDataset has it.

    Args:
        train: List of the training videos, relative to the data root.
        val: list for validation, if there is one.
        test: list for testing, if there is one.
        classes: File with the name of a class a line, in the order of the numbers.
        videos: Folder the paths start from, relative to the data root.
        delimiter: Between path and number; the last one in the line counts, so paths may hold it too.
        frame_rate: Frames a second of the folders of images that the lists name; None where they name files.
    """

    def __init__(
        self,
        train: str = "train.txt",
        val: str | None = None,
        test: str | None = None,
        classes: str = "classes.txt",
        videos: str = "",
        delimiter: str = " ",
        frame_rate: float | None = None,
    ) -> None:
        self.lists: tuple[tuple[Split, str | None], ...] = (("train", train), ("val", val), ("test", test))
        self.classes = classes
        self.videos = videos
        self.delimiter = delimiter
        self.frame_rate = checked_rate(frame_rate)

    def label_names(self, root: Path) -> tuple[str, ...]:
        """The classes in the order of their numbers.

        Raises:
            DataError: A line before the last name is empty, so that the numbers of those after it are not clear.
        """
        path = annotation_file(root, self.classes)
        lines = [line.strip() for line in io.StringIO(read_text(path).rstrip(), newline=None)]
        if "" in lines:
            raise DataError(
                f"{path}, row {lines.index('') + 1}: is empty, and the number of a class is that of its line, counted "
                "from 0; write the name of the class there, or delete the line."
            )
        return tuple(lines)

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the lists.

        Raises:
            DataError: A line is no path and class number, or listed videos are not on disk.
        """
        names = self.label_names(root)
        records: list[VideoRecord] = []
        for side, file in self.lists:
            if file is None:
                continue
            for where, line in read_lines(annotation_file(root, file)):
                stated, _, number = line.rpartition(self.delimiter)
                stated, number = stated.strip(), number.strip()
                if not number.isdecimal() or not stated:
                    raise DataError(f"{where}: expected '<path>{self.delimiter}<class number>', found {line!r}.")
                before, _, last = stated.rpartition(self.delimiter)
                if last.isdecimal() and is_video(before.split(self.delimiter)[0]):
                    raise DataError(
                        f"{where}: several classes for one video; keep one, the classes exclude each other."
                    )
                if int(number) >= len(names):
                    raise DataError(f"{where}: the class {number} is not among the {len(names)} of {self.classes}.")
                images = None if self.frame_rate is None else last.strip()
                path = relative_path(str(PurePosixPath(self.videos, stated if images is None else before)), where)
                video = path if images is None else self._sequence(root, path, images, where)
                records.append(VideoRecord(id=path, path=video, label=names[int(number)], split=side))
        require_on_disk(root, records, str(root))
        return records

    def _sequence(self, root: Path, path: str, images: str, where: str) -> str:
        """The name of a folder of images with its frame rate; it must hold as many as the list says."""
        assert self.frame_rate is not None
        if not images.isdecimal() or not path:
            line = self.delimiter.join(("<folder>", "<number of images>", "<class number>"))
            raise DataError(f"{where}: expected '{line}', as data.format.frame_rate is set.")
        found = count_images(root / path) if (root / path).is_dir() else None
        if found is not None and found != int(images):
            raise DataError(f"{where}: {path} holds {found} numbered images, and the list says {images}.")
        return sequence_name(path, self.frame_rate)
