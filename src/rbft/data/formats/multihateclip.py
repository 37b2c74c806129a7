"""MultiHateClip (Wang et al., ACM Multimedia 2024), the second data set of the RB-FT paper."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import MissingPolicy, VideoIndex, is_video, visible
from rbft.data.formats.rows import annotation_file, read_table
from rbft.data.records import Split, VideoRecord, relative_path
from rbft.errors import DataError

_CLASSES = ("Normal", "Offensive", "Hateful")
_BINARY = ("Normal", "Hateful or Offensive")


class MultiHateClip(DatasetFormat):
    """Short videos in English (YouTube) or Chinese (Bilibili) with the official train, validation and test lists.

    A video is a file named by its id, or the one video in a folder named by its id.

    Args:
        language: Which half of the data set.
        classes: `three` (Normal, Offensive, Hateful) or `two` (Offensive and Hateful as one class).
        videos: Folder below which the videos lie; empty looks everywhere below the root.
        missing: Listed videos that are not on disk (many were deleted): `error`, or `drop` with a warning that counts
            them by class.
    """

    def __init__(
        self,
        language: Literal["English", "Chinese"] = "English",
        classes: Literal["three", "two"] = "three",
        videos: str = "",
        missing: MissingPolicy = "error",
    ) -> None:
        self.language = language
        self.classes = classes
        self.videos = videos
        self.missing = missing

    def label_names(self, root: Path) -> tuple[str, ...]:
        """From harmless to harmful."""
        return _CLASSES if self.classes == "three" else _BINARY

    def read(self, root: Path) -> list[VideoRecord]:
        """The videos in the order of the lists.

        Raises:
            DataError: A list is missing or wrong, or a video is not on disk.
        """
        index = VideoIndex(root, self.videos)
        clips = ListedClips()
        lists: tuple[tuple[Split, str], ...] = (("train", "train"), ("val", "valid"), ("test", "test"))
        folder = f"{self.language}_data/annotation"
        for side, name in lists:
            for row in read_table(annotation_file(root, f"{folder}/{name}.tsv")):
                video, vote = row.filled("Video_ID"), row.filled("Majority_Voting")
                if vote not in _CLASSES:
                    raise DataError(f"{row.where}: the vote {vote!r} is none of {', '.join(_CLASSES)}.")
                label = vote if self.classes == "three" or vote == _BINARY[0] else _BINARY[1]
                clips.add(video, label, index.find(video) or _in_folder(root, self.videos, video), side)
        return clips.on_disk(str(root / folder), self.missing)


def _in_folder(root: Path, videos: str, video: str) -> str | None:
    """The only video in the folder that the data set's download script makes for an id."""
    stated = PurePosixPath(videos, relative_path(video, "Video_ID"))
    folder = root / stated
    names = [path.name for path in visible(folder) if is_video(path.name)] if folder.is_dir() else []
    if len(names) > 1:
        raise DataError(f"{folder} holds {len(names)} videos ({names[0]}, {names[1]}); leave the right one.")
    return relative_path(str(stated / names[0]), str(folder)) if names else None
