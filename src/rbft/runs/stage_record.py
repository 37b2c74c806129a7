"""What a finished stage was made from: its fingerprint, its inputs, and the hashes of what it left behind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rbft.errors import StageError
from rbft.files import file_digest, read_json, write_json
from rbft.runs.names import STAGE

SCHEMA = 1
"""Raised whenever the meaning of a stage's output changes, so that older outputs are made again."""


@dataclass(frozen=True)
class StageRecord:
    """The marker of a finished stage, written last.

    Args:
        stage: name of the stage.
        kind: kind of the stage.
        fingerprint: fingerprint of its inputs.
        inputs: the inputs in readable form.
        outputs: hash of each file it left, by path relative to its folder.
        seconds: duration of the stage.
        summary: a few figures for people.
    """

    stage: str
    kind: str
    fingerprint: str
    inputs: dict[str, Any]
    outputs: dict[str, str]
    seconds: float
    summary: dict[str, Any]


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """A stable hash of plain JSON values."""
    text = json.dumps({"schema": SCHEMA, **inputs}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys at which two nested mappings differ."""
    differing: list[str] = []
    for key in sorted({*old, *new}):
        before, other = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(other, Mapping):
            differing += changed_keys(before, other, f"{prefix}{key}.")
        elif before != other:
            differing.append(f"{prefix}{key}")
    return differing


def write_record(folder: Path, record: StageRecord) -> None:
    """Mark the stage in `folder` as finished."""
    write_json(folder / STAGE, asdict(record))


def read_record(folder: Path) -> StageRecord | None:
    """The marker of a finished stage, or None.

    Raises:
        StageError: The marker is there but not one this version understands.
    """
    path = folder / STAGE
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        record = StageRecord(**content)
    except TypeError as error:
        raise StageError(f"{path} is not a stage record of this version ({error}); run with --restart.") from error
    whole = isinstance(record.inputs, dict) and isinstance(record.outputs, dict)
    texts = (record.stage, record.kind, record.fingerprint, *(record.outputs.values() if whole else ()))
    if not whole or not all(isinstance(text, str) for text in texts):
        raise StageError(f"{path} is not a stage record of this version; run with --restart.")
    return record


def hash_outputs(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the named files and of all files below the named folders."""
    files: list[Path] = []
    for name in names:
        path = folder / name
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def verify_outputs(folder: Path, record: StageRecord) -> None:
    """Refuse a stage's output that is no longer what the stage wrote.

    Raises:
        StageError: A file is missing or changed; names it.
    """
    for name, digest in record.outputs.items():
        path = folder / name
        # unlike Path.is_file, this takes a name that cannot be one for a file that is not there
        if not os.path.isfile(path):  # noqa: PTH113
            raise StageError(
                f"{path} is missing, though the stage {record.stage!r} finished. "
                f"Make it again with `--stage {record.stage} --restart`."
            )
        if file_digest(path) != digest:
            raise StageError(
                f"{path} was changed after the stage {record.stage!r} finished. Restore it, or make it "
                f"again with `--stage {record.stage} --restart`."
            )
