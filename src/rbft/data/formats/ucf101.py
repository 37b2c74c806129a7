"""UCF101 with its official train and test lists (Soomro, Zamir, Shah 2012)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import VideoIndex, warn_if_not_official
from rbft.data.formats.rows import annotation_file, read_lines
from rbft.data.records import Split, VideoRecord, relative_path
from rbft.errors import DataError

# Training and test videos of the official lists, by split; no (class, group) stands on both sides of any.
OFFICIAL = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}

_GROUP = re.compile(r"_(g\d+)_c\d+$")


class UCF101(DatasetFormat):
    """The 101 classes with one of the three official splits; there is no official validation list.

    Videos may lie in `root/<Class>/`, in `root/UCF-101/<Class>/` or all in one folder, as .avi or re-encoded. They are
    found by file name whatever its case, because the class HandstandPushups has files named `v_HandStandPushups_*`.
    A group is a class and the g01 to g25 of the file name: clips of one person and background.

    Args:
        split: The official split.
        lists: Folder of classInd.txt, trainlist0*.txt and testlist0*.txt, relative to the data root.
    """

    def __init__(self, split: Literal[1, 2, 3] = 1, lists: str = "ucfTrainTestlist") -> None:
        self.split = split
        self.lists = lists

    def label_names(self, root: Path) -> tuple[str, ...]:
        """The classes in the order of classInd.txt.

        Raises:
            DataError: A line is not "number name" with the numbers 1, 2, ... in order.
        """
        names: list[str] = []
        for where, line in read_lines(annotation_file(root, f"{self.lists}/classInd.txt")):
            number, _, name = line.partition(" ")
            if number != str(len(names) + 1) or not name:
                raise DataError(f"{where}: expected '{len(names) + 1} <class>', found {line!r}.")
            names.append(name.strip())
        return tuple(names)

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos of both lists, training first.

        Raises:
            DataError: A list is missing or wrong, or listed videos are not on disk.
        """
        names = self.label_names(root)
        index = VideoIndex(root)
        clips = ListedClips()
        sides: tuple[Split, ...] = ("train", "test")
        for side in sides:
            for where, line in read_lines(annotation_file(root, f"{self.lists}/{side}list{self.split:02d}.txt")):
                stated, label = _parse(line, where, names)
                clip = stated.stem
                path = index.find(clip, prefer=str(stated))
                group = f"{label}_{_group(clip, where)}"
                clips.add(clip, label, path, side, shown=str(stated), group=group)
        records = clips.on_disk(str(root / self.lists))
        if len(names) == 101:  # fewer classes are a choice
            counts = Counter(str(record.split) for record in records)
            train, test = OFFICIAL[self.split]
            warn_if_not_official(f"{root / self.lists}, split {self.split}", counts, {"train": train, "test": test})
        return records


def _parse(line: str, where: str, names: tuple[str, ...]) -> tuple[PurePosixPath, str]:
    """The path and class of "Class/file.avi [number]"; a number must be the one classInd.txt gives the class."""
    text, _, number = line.partition(" ")
    path = PurePosixPath(relative_path(text, where))
    label = path.parent.name
    if label not in names:
        raise DataError(f"{where}: the class {label!r} is not in classInd.txt.")
    if number and number.strip() != str(names.index(label) + 1):
        raise DataError(f"{where}: classInd.txt gives {label} the number {names.index(label) + 1}, found {number!r}.")
    return path, label


def _group(clip: str, where: str) -> str:
    match = _GROUP.search(clip)
    if match is None:
        raise DataError(f"{where}: {clip!r} does not end in a group and clip number like '_g01_c01'.")
    return match[1]
