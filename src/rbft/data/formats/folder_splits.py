"""Splits that the folders of a data set seem to state where its format takes them for nothing of the kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rbft.data.records import SPLIT_NAMES, VideoRecord
from rbft.errors import warn


def warn_of_folder_splits(where: Path | str, records: Iterable[VideoRecord], advice: str) -> None:
    """Say that videos lie in folders that are called as splits are, of two splits or more, and that nothing states one.

    Args:
        where: the folder or table, for the message.
        records: its videos.
        advice: what to do, as a sentence.
    """
    counts: Counter[str] = Counter()
    for record in records:
        if record.split is not None:
            return
        folders = PurePosixPath(record.path).parts[:-1]
        counts.update([next((name for name in folders if name.casefold() in SPLIT_NAMES), "")])
    names = sorted(name for name in counts if name)
    if len({SPLIT_NAMES[name.casefold()] for name in names}) < 2:
        return
    listed = ", ".join(f"{name} ({counts[name]})" for name in names)
    warn(
        f"{where}: videos lie in folders that are called as splits are ({listed}) and are not taken for any: what "
        f"trains, validates and tests is drawn from all of them. {advice}",
    )
