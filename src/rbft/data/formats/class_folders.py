"""Videos in a folder for each class, with or without a folder for each split above."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.folder_splits import warn_of_folder_splits
from rbft.data.formats.on_disk import (
    checked_rate,
    is_video,
    listing,
    no_video,
    require_folder,
    videos_below,
    visible,
)
from rbft.data.labels import names_split
from rbft.data.own_folders import is_own_folder
from rbft.data.records import SPLIT_NAMES, Split, VideoRecord, found_path
from rbft.errors import DataError
from rbft.video.image_sequence import split_rate


class ClassFolders(DatasetFormat):
    """`root/<class>/*.mp4`, or `root/<split>/<class>/*.mp4`; a class folder may hold folders of its own.

    The folders of the root are splits if all of them have a split's name (train, val, validation, valid, dev, test).
    Folders that rbft itself left there (runs, suggestions, exports) are no classes.
    Files that are no videos are left out, as long as their class has videos as well; `rbft check` counts them.

    Args:
        skip: Folders of the root that are neither class nor split, such as one of unlabelled videos.
        frame_rate: Frames a second of folders of numbered images, each of which is a video; None: they are none.
    """

    def __init__(self, skip: tuple[str, ...] = (), frame_rate: float | None = None) -> None:
        self.skip = tuple(skip)
        self.frame_rate = checked_rate(frame_rate)

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos, sorted by split and class folder and path.

        Raises:
            DataError: The root is no folder or holds no class, a class is empty, or a video lies in no class.
        """
        require_folder(root)
        folders = [f for f in _class_folders(root) if f.name not in self.skip and not is_own_folder(f)]
        splits = [folder for folder in folders if folder.name.casefold() in SPLIT_NAMES]
        if splits and len(splits) < len(folders) and any(any(p.is_dir() for p in visible(s)) for s in splits):
            others = [folder.name for folder in folders if folder not in splits]
            unknown = [name for name in others if names_split(name)]
            rename = f"call splits train, val and test ({listing(unknown)}), " if unknown else ""
            raise DataError(
                f"{root} mixes split folders ({splits[0].name}) and others ({others[0]}); {rename}move the classes "
                f"into the split folders, or leave out what is no class: {self._skip_flag(others)}"
            )
        if not splits and len(folders) > 1 and all(names_split(folder.name) for folder in folders):
            names = listing([folder.name for folder in folders])
            raise DataError(
                f"{root}: are {names} classes or splits? Rename splits to train, val and test; give "
                "classes other names, or list them in a table (data.format Table)."
            )
        if len(splits) < len(folders):
            records = list(self._read_classes(root, folders, None))
            warn_of_folder_splits(
                root,
                records,
                "Put the splits above the classes (train/CLASS, test/CLASS), or list the clips in a table with the "
                "columns path,label,split.",
            )
            return records
        return [
            record
            for folder in splits
            for record in self._read_classes(root, _class_folders(folder), SPLIT_NAMES[folder.name.casefold()])
        ]

    def _read_classes(self, root: Path, folders: list[Path], split: Split | None) -> Iterator[VideoRecord]:
        for folder in folders:
            videos = videos_below(folder, self.frame_rate)
            if not videos:
                raise DataError(
                    f"the class folder {folder} {no_video(folder)}; fill it or remove it{self._or_skip(root, folders)}"
                )
            if any(split_rate(str(video))[0] == str(folder) for video in videos):
                raise DataError(f"the class folder {folder} holds images itself; each video needs a folder of its own.")
            for video in videos:
                path = found_path(video, root)
                yield VideoRecord(id=split_rate(path)[0], path=path, label=folder.name, split=split)

    def _or_skip(self, root: Path, folders: list[Path]) -> str:
        """How folders of the root without a video are left out, as a clause."""
        if folders[0].parent != root:
            return "."
        bare = [folder.name for folder in folders if not videos_below(folder, self.frame_rate)]
        return f", or leave out what is no class: {self._skip_flag(bare)}"

    def _skip_flag(self, names: list[str]) -> str:
        return f"--data.format.skip {shlex.quote(json.dumps([*self.skip, *names], ensure_ascii=False))}"


def _class_folders(folder: Path) -> list[Path]:
    entries = visible(folder)
    if loose := [path.name for path in entries if path.is_file() and is_video(path.name)]:
        raise DataError(f"{folder / loose[0]} lies in no class folder; move it into one, or use the format Table.")
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        raise DataError(f"{folder} holds no class folders (found {listing([p.name for p in entries])}).")
    return folders
