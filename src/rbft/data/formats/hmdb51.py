"""HMDB51 with its official train and test lists (Kuehne et al., ICCV 2011)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import VideoIndex, warn_if_not_official
from rbft.data.formats.rows import annotation_file, read_lines
from rbft.data.records import Split, VideoRecord, relative_path
from rbft.errors import DataError

_CODES: dict[str, Split | None] = {"0": None, "1": "train", "2": "test"}

# Visible body part, camera motion, number of people, viewpoint, quality, number of the clip.
_PROPERTIES = re.compile(r"_[fuhl]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$")


class HMDB51(DatasetFormat):
    """The 51 classes with one of the three official splits: 70 training and 30 test clips a class.

    Clips that the split uses for neither (code 0) are left out. A group is the part of the file name before the clip's
    properties, source film and class: within a class, the official splits keep the clips of a film together.

    Args:
        split: The official split.
        lists: Folder of the files `<class>_test_split<n>.txt`, relative to the data root.
    """

    def __init__(self, split: Literal[1, 2, 3] = 1, lists: str = "testTrainMulti_7030_splits") -> None:
        self.split = split
        self.lists = lists

    def read(self, root: Path) -> list[VideoRecord]:
        """The training and test clips, by class.

        Raises:
            DataError: A list is missing or wrong, or listed videos are not on disk.
        """
        index = VideoIndex(root)
        folder = root / relative_path(self.lists, "lists of HMDB51")
        ending = f"_test_split{self.split}.txt"
        lists = sorted(folder.glob(f"*{ending}"))
        if not lists:
            raise DataError(f"{folder} holds no file '*{ending}'; put the official lists there, or set `lists`.")
        clips = ListedClips()
        for path in lists:
            label = path.name.removesuffix(ending)
            for where, line in read_lines(annotation_file(root, path.relative_to(root).as_posix())):
                name, _, code = line.rpartition(" ")
                if code not in _CODES or not name:
                    raise DataError(f"{where}: expected '<file> 0|1|2', found {line!r}.")
                side = _CODES[code]
                if side is None:
                    continue
                clip = Path(relative_path(name.strip(), where)).stem
                stated = f"{label}/{name.strip()}"
                group = f"{label}/{_PROPERTIES.sub('', clip)}"
                clips.add(f"{label}/{clip}", label, index.find(clip, stated), side, shown=stated, group=group)
        records = clips.on_disk(str(folder))
        if len(lists) == 51:  # fewer classes are a choice
            counts = Counter(str(record.split) for record in records)
            warn_if_not_official(f"{folder}, split {self.split}", counts, {"train": 51 * 70, "test": 51 * 30})
        return records
