"""Diving48 V2 (Li, Li, Vasconcelos, ECCV 2018) from its official JSON files."""

from __future__ import annotations

import re
from pathlib import Path

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import VideoIndex
from rbft.data.formats.rows import annotation_file, read_json, read_json_objects
from rbft.data.records import Split, VideoRecord
from rbft.errors import DataError

_TURNS = re.compile(r"(\d)(\d)(som|twis)", re.IGNORECASE)


class Diving48(DatasetFormat):
    """48 classes of competitive dives, each a take-off, somersaults, twists and a body position.

    Class names are the vocabulary's terms written out: ["Back", "15som", "05Twis", "FREE"] is "back, 1.5 somersaults,
    0.5 twists, free". The data set names no scenes or competitions, so there are no groups.

    Args:
        train: List of {vid_name, label}, relative to the data root. V1 had wrong labels; use V2.
        test: list for testing.
        vocabulary: List of the terms of each class, by number.
        videos: Folder below which the clips lie; empty looks everywhere below the root.
    """

    def __init__(
        self,
        train: str = "Diving48_V2_train.json",
        test: str = "Diving48_V2_test.json",
        vocabulary: str = "Diving48_vocab.json",
        videos: str = "",
    ) -> None:
        self.lists: tuple[tuple[Split, str], ...] = (("train", train), ("test", test))
        self.vocabulary = vocabulary
        self.videos = videos

    def label_names(self, root: Path) -> tuple[str, ...]:
        """The classes by their official number.

        Raises:
            DataError: The vocabulary is no list of lists of terms.
        """
        path = annotation_file(root, self.vocabulary)
        classes = read_json(path)
        if not isinstance(classes, list):
            raise DataError(f"{path}: expected a list of classes, found {type(classes).__name__}.")
        for number, terms in enumerate(classes):
            if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
                raise DataError(f"{path}, class {number}: expected a list of terms, found {terms!r}.")
        return tuple(", ".join(_written_out(term) for term in terms) for terms in classes)

    def read(self, root: Path) -> list[VideoRecord]:
        """The dives in the order of the lists.

        Raises:
            DataError: A list is missing or wrong, or listed videos are not on disk.
        """
        names = self.label_names(root)
        index = VideoIndex(root, self.videos)
        clips = ListedClips()
        for side, file in self.lists:
            for row in read_json_objects(annotation_file(root, file)):
                clip, number = row.filled("vid_name"), row.filled("label")
                if not number.isdecimal() or int(number) >= len(names):
                    raise DataError(f"{row.where}: the label {number!r} is not a number from 0 to {len(names) - 1}.")
                clips.add(clip, names[int(number)], index.find(clip), side)
        return clips.on_disk(str(root))


def _written_out(term: str) -> str:
    if match := _TURNS.fullmatch(term):
        return f"{match[1]}.{match[2]} {'somersaults' if match[3].lower() == 'som' else 'twists'}"
    return {"notwis": "no twist"}.get(term.lower(), term.lower())
