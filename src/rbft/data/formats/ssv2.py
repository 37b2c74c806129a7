"""Something-Something V2 (Goyal et al., ICCV 2017) from its official JSON files."""

from __future__ import annotations

import re
from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import VideoIndex
from rbft.data.formats.rows import annotation_file, read_json, read_json_objects
from rbft.data.records import Split, VideoRecord
from rbft.errors import DataError


class SSv2(DatasetFormat):
    """174 classes of hand movements. A class is a template without its brackets.

    The official test list has no labels, so results are reported on the validation list; it is the test split here
    unless set otherwise. The records' human text is `caption`, the template with the objects filled in.

    Args:
        train: List of {id, label, template}, relative to the data root.
        val: list for validation; None leaves validation to the splits that are made.
        test: list for testing.
        labels: Object that gives each class its number.
        videos: Folder below which the clips `<id>.webm` lie; empty looks everywhere below the root.
    """

    def __init__(
        self,
        train: str = "something-something-v2-train.json",
        val: str | None = None,
        test: str | None = "something-something-v2-validation.json",
        labels: str = "something-something-v2-labels.json",
        videos: str = "",
    ) -> None:
        self.lists: tuple[tuple[Split, str | None], ...] = (("train", train), ("val", val), ("test", test))
        self.labels = labels
        self.videos = videos

    def label_names(self, root: Path) -> tuple[str, ...]:
        """The classes by their official number.

        Raises:
            DataError: The file does not number the classes 0, 1, 2, ...
        """
        path = annotation_file(root, self.labels)
        numbers = read_json(path)
        if not isinstance(numbers, dict) or {str(number) for number in numbers.values()} != set(
            map(str, range(len(numbers)))
        ):
            raise DataError(f"{path}: expected an object that numbers the classes 0, 1, 2, ...")
        return tuple(sorted(numbers, key=lambda name: int(numbers[name])))

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the lists.

        Raises:
            DataError: A list is missing or wrong, or listed videos are not on disk.
        """
        names = set(self.label_names(root))
        index = VideoIndex(root, self.videos)
        clips = ListedClips()
        for side, file in self.lists:
            if file is None:
                continue
            for row in read_json_objects(annotation_file(root, file)):
                clip, label = row.filled("id"), re.sub(r"[\[\]]", "", row.filled("template"))
                if label not in names:
                    raise DataError(f"{row.where}: the class {label!r} is not in {self.labels}.")
                clips.add(clip, label, index.find(clip), side, text={"caption": row.text("label")})
        return clips.on_disk(str(root))
