"""SmartHome-Bench, the home-camera data set of the RB-FT paper (arXiv 2511.15923)."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.listed import ListedClips
from rbft.data.formats.on_disk import MissingPolicy, VideoIndex
from rbft.data.formats.rows import Row, annotation_file, read_json, read_lines, read_table
from rbft.data.records import Split, VideoRecord
from rbft.errors import DataError

_CLIP = re.compile(r"(?:smartbench_)?(\d{4})(?:-anomaly-detection)?")
_YOUTUBE = re.compile(r"(?:[?&]v=|/shorts/|youtu\.be/)([\w-]+)")


class SmartHomeBench(DatasetFormat):
    """1,203 clips tagged Normal, Abnormal or Vague Abnormal; 180 of them were never public.

    The data set states no split; the paper's authors use lists of their own. A group is the public video a clip comes
    from. The records' human text is `category`, `description` and `reasoning`.

    Args:
        annotations: Table with the columns Title, Category, Anomaly Tag, Video Description and Reasoning...
        sources: Table with the columns Video Name and URL; None makes every clip a group of its own.
        videos: Folder below which the clips lie, named by their title.
        vague: What becomes of Vague Abnormal: `abnormal` (as the RB-FT authors do), `drop`, or `own_class`.
        train_list: File of the training clips: an id a line, or JSON (a list of ids, or of conversations that name
            `video` or `id`).
        test_list: list of the test clips. If both lists are given, clips on neither are left out; if one is
            given, the other clips have no stated split.
        missing: Listed clips that are not on disk: `error`, or `drop` with a warning that counts them by class.
    """

    def __init__(
        self,
        annotations: str = "Videos/Video_Annotation.csv",
        sources: str | None = "Videos/Video_url.csv",
        videos: str = "Videos",
        vague: Literal["abnormal", "drop", "own_class"] = "abnormal",
        train_list: str | None = None,
        test_list: str | None = None,
        missing: MissingPolicy = "error",
    ) -> None:
        self.annotations = annotations
        self.sources = sources
        self.videos = videos
        self.vague = vague
        self.train_list = train_list
        self.test_list = test_list
        self.missing = missing

    def label_names(self, root: Path) -> tuple[str, ...]:
        """Normal first; the vague class last if it is one of its own."""
        return ("normal", "abnormal", "vague_abnormal") if self.vague == "own_class" else ("normal", "abnormal")

    def read(self, root: Path) -> list[VideoRecord]:
        """The clips in the order of the annotation table.

        Raises:
            DataError: A table or list is wrong, or a clip is not on disk.
        """
        table = annotation_file(root, self.annotations)
        rows = _by_clip(read_table(table), "Title")
        groups = self._groups(root)
        sides = self._sides(root, rows)
        index = VideoIndex(root, self.videos)
        clips = ListedClips()
        for clip, row in rows.items():
            label = self._label(row)
            if label is None or (self.train_list and self.test_list and clip not in sides):
                continue
            clips.add(clip, label, index.find(clip), sides.get(clip), group=groups.get(clip), text=_human_text(row))
        return clips.on_disk(str(table), self.missing)

    def _label(self, row: Row) -> str | None:
        tag = row.filled("Anomaly Tag").casefold()
        if tag == "vague abnormal":
            return {"abnormal": "abnormal", "drop": None, "own_class": "vague_abnormal"}[self.vague]
        if tag not in ("normal", "abnormal"):
            raise DataError(f"{row.where}: the tag {tag!r} is none of Normal, Abnormal, Vague Abnormal.")
        return tag

    def _groups(self, root: Path) -> dict[str, str]:
        if self.sources is None:
            return {}
        rows = _by_clip(read_table(annotation_file(root, self.sources)), "Video Name")
        groups: dict[str, str] = {}
        for clip, row in rows.items():
            url = row.text("URL")
            if url.startswith("http"):  # clips that were never public have a remark here
                match = _YOUTUBE.search(url)
                groups[clip] = match[1] if match else url
        return groups

    def _sides(self, root: Path, rows: dict[str, Row]) -> dict[str, Split]:
        sides: dict[str, Split] = {}
        lists: tuple[tuple[Split, str | None], ...] = (("train", self.train_list), ("test", self.test_list))
        for side, name in lists:
            if name is None:
                continue
            for where, clip in _read_list(annotation_file(root, name)):
                if clip not in rows:
                    raise DataError(f"{where}: the clip {clip} is not in {self.annotations}.")
                if sides.setdefault(clip, side) != side:
                    raise DataError(f"{where}: the clip {clip} is on the training list as well.")
        return sides


def _by_clip(rows: list[Row], column: str) -> dict[str, Row]:
    """The rows of a table by clip; rows without a clip (empty ones that a spreadsheet adds) are left out."""
    by_clip: dict[str, Row] = {}
    for row in rows:
        if not row.text(column):
            continue
        clip = _clip(row.text(column), row.where)
        if (other := by_clip.setdefault(clip, row)) is not row:
            raise DataError(f"{row.where}: {clip} is already listed in {other.where}; keep one of the rows.")
    return by_clip


def _clip(name: str, where: str) -> str:
    match = _CLIP.fullmatch(name)
    if match is None:
        raise DataError(f"{where}: {name!r} is no clip of SmartHome-Bench (smartbench_0001 to smartbench_1203).")
    return f"smartbench_{match[1]}"


def _read_list(path: Path) -> list[tuple[str, str]]:
    """(file and row, clip) for each entry of an id list or a conversation file."""
    if path.suffix != ".json":
        return [(where, _clip(line, where)) for where, line in read_lines(path)]
    clips: list[tuple[str, str]] = []
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of ids or conversations, found {type(content).__name__}.")
    for number, item in enumerate(content, start=1):
        where = f"{path}, item {number}"
        name = item.get("video", item.get("id")) if isinstance(item, dict) else item
        if not isinstance(name, str):
            raise DataError(f"{where}: expected an id, or an object that names 'video' or 'id'.")
        clips.append((where, _clip(PurePosixPath(name).stem, where)))
    return clips


def _human_text(row: Row) -> dict[str, str]:
    reasoning = next((column for column in row.cells if column.startswith("Reasoning")), "Reasoning")
    columns = {"category": "Category", "description": "Video Description", "reasoning": reasoning}
    return {name: row.text(column) for name, column in columns.items()}
