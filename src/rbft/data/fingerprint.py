"""What a data set is, as a hash: of a file, and of records with the videos they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rbft.data.records import VideoRecord
from rbft.errors import DataError


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of the whole file, in hexadecimal."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _digest(path: Path, size: int, modified: int, changed: int) -> str:
    """Read a file once a process as long as its size and times stay: every stage of a run asks for the same videos."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def records_fingerprint(root: Path, records: Iterable[VideoRecord]) -> str:
    """A hash of ids, labels, splits, groups and file contents; not of paths, file times or the order of records.

    Raises:
        DataError: A video file is missing; names it.
    """
    total = hashlib.blake2b(digest_size=16)
    for record in sorted(records, key=lambda record: record.id):
        try:
            digest = file_digest(root / record.path)
        except FileNotFoundError as error:
            raise DataError(f"{root / record.path} is missing; restore it or take it off the data set.") from error
        row = [record.id, record.label, record.split, record.group, digest]
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
