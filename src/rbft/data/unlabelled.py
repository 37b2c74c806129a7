"""Videos without labels: which they are, and that nothing of them is in validation or test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rbft.data.findings import some_of
from rbft.data.formats.columns import optional_column, paths_column
from rbft.data.formats.on_disk import require_on_disk, videos_below
from rbft.data.formats.rows import inside, read_table
from rbft.data.leaks import crossing_groups, near_duplicates
from rbft.data.records import VideoRecord, found_path, relative_path
from rbft.data.splits import Splits
from rbft.data.video_facts import VideoFacts
from rbft.errors import DataError

UNUSED = "unused"
"""Takes the labelled videos that the low-data protocol leaves over, without their labels."""
_KEY = "data.unlabelled"
_LIKE = 0.85  # as in rbft.data.check


def without_labels(records: Sequence[VideoRecord], root: Path, where: str | None) -> list[VideoRecord]:
    """The labelled videos: those below a folder of unlabelled ones are none, whatever the format makes of it."""
    if where is None or where == UNUSED or not (root / relative_path(where, _KEY)).is_dir():
        return list(records)
    below = relative_path(where, _KEY) + "/"
    return [record for record in records if not record.path.startswith(below)]


def read_unlabelled(
    root: Path, where: str, records: Sequence[VideoRecord], splits: Splits, frame_rate: float | None = None
) -> list[VideoRecord]:
    """The videos that `data.unlabelled` names, each with an empty label.

    Args:
        root: The data root.
        where: A folder below the root, all of whose videos are taken; or a table (.csv, .tsv, .jsonl, .parquet) there
            with a column of paths (relative to the root) and, if it likes, `group`; or `unused`.
        records: The labelled videos; a path that is one of theirs keeps its group.
        splits: splits of the labelled videos.
        frame_rate: frames a second of folders of numbered images, each of which then is a video.

    Raises:
        DataError: There is no such folder or file, it names no video, one twice or one that is not there, or one that
            trains, validates or is tested on.
    """
    if any(record.part is not None for record in records):
        raise DataError(f"{_KEY}: with parts of videos (columns start and end) there is no such thing; leave it out.")
    if where == UNUSED:
        held_out = {record.group for record in (*splits.val, *splits.test)} - {None}
        videos = [r for r in splits.unused if r.split in (None, "train") and r.group not in held_out]
    else:
        path = inside(root, root / relative_path(where, _KEY))
        if path.is_dir():
            files = videos_below(path, frame_rate)
            stated = {found_path(file, root): "" for file in files}
        elif path.is_file():
            stated = _read_table(path)
        else:
            raise DataError(f"{_KEY}: {path} is neither a folder nor a table; it is relative to data.root.")
        known = {record.path: record for record in records}
        videos = [known.get(name) or VideoRecord(name, name, "") for name in stated]
        videos = [replace(record, group=stated[record.path] or record.group) for record in videos]
    if not videos:
        raise DataError(f"{_KEY}: {where} holds no video to write about without a label.")
    videos = [VideoRecord(record.id, record.path, "", None, record.group) for record in videos]
    require_on_disk(root, videos, f"{_KEY} ({where})")
    _refuse_known(videos, splits)
    return sorted(videos, key=lambda record: record.id)


def _read_table(path: Path) -> dict[str, str]:
    """The group of each path of a table, empty where none is stated."""
    groups: dict[str, str] = {}
    rows = read_table(path)
    column, group = paths_column(rows[0].names, rows[0].header), optional_column("auto", "group", rows)
    for row in rows:
        name = relative_path(row.filled(column), row.where)
        if name in groups:
            raise DataError(f"{row.where}: {name} is named twice; keep one of the rows.")
        groups[name] = "" if group is None else row.text(group)
    return groups


def _refuse_known(records: Sequence[VideoRecord], splits: Splits) -> None:
    sides = {r.path: side for side in ("train", "val", "test") for r in getattr(splits, side)}
    for record in records:
        if record.path in sides:
            raise DataError(f"{_KEY}: {record.path} is in {sides[record.path]}; take it off the unlabelled videos.")


def refuse_leaks(unlabelled: Sequence[VideoRecord], splits: Splits, facts: Mapping[str, VideoFacts]) -> list[str]:
    """Refuse unlabelled videos that validation or test know by content or group.

    Args:
        unlabelled: The readable ones.
        splits: splits of the labelled videos.
        facts: facts of all of them, by path.

    Returns:
        Warnings: what looks like a video of validation or test, and copies of training videos.

    Raises:
        DataError: Names the first such videos.
    """
    warnings: list[str] = []
    digests = {facts[record.path].digest: record for record in unlabelled}
    for side in ("val", "test", "train"):
        part = [record for record in getattr(splits, side) if facts[record.path].decoded_frames]
        same = [(digests[facts[r.path].digest], r) for r in part if facts[r.path].digest in digests]
        listed = some_of(f"{record.path} is {other.path}" for record, other in same)
        if same and side != "train":
            raise DataError(
                f"{_KEY}: {len(same)} videos are the same files as videos of {side} ({listed}), so that what "
                "is tested would be trained on. Take them off."
            )
        if same:
            warnings.append(f"{_KEY}: {len(same)} videos are the same files as labelled training videos ({listed}).")
        if side == "train":
            continue
        both = {"unlabelled": unlabelled, side: part}
        if groups := list(crossing_groups(both)):
            raise DataError(f"{_KEY}: {groups[0].message}")
        notes: list[str] = []
        warnings += [finding.message for finding in near_duplicates(both, facts, _LIKE, notes)] + notes
    return warnings
