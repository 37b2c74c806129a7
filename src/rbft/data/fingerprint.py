"""What a data set is, as a hash of its records with the videos they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from rbft.data.records import VideoRecord
from rbft.errors import DataError
from rbft.video.content import content_digest


def records_fingerprint(root: Path, records: Iterable[VideoRecord]) -> str:
    """A hash of ids, labels, splits, groups and file contents; not of paths, file times or the order of records.

    Raises:
        DataError: A video file is missing; names it.
    """
    total = hashlib.blake2b(digest_size=16)
    for record in sorted(records, key=lambda record: record.id):
        try:
            digest = content_digest(root / record.path)
        except FileNotFoundError as error:
            raise DataError(f"{root / record.path} is missing; restore it or take it off the data set.") from error
        row: list[object] = [record.id, record.label, record.split, record.group, digest]
        row += [] if record.part is None else [record.part]
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
