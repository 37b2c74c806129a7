"""Checkpoints of a stage: whole or absent, verified by hash, and read as data only."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from rbft.errors import StageError, warn
from rbft.files import NOT_JSON, no_room, remove_unfinished, replacing, sync_folder, write_json

MANIFEST = "last.json"
"""Manifest of the checkpoints in their folder; a trainer gets its path as the path of the checkpoint."""

_KEPT = 2  # the newest, and the one before it should the disk lose the newest


def not_sharded(how: str, strategy: str) -> StageError:
    """The refusal to go on from a checkpoint that another trainer.strategy saved."""
    return StageError(
        f"this stage was interrupted under {how} and cannot go on; set trainer.strategy {strategy}, or add --restart."
    )


@dataclass(frozen=True)
class Written:
    """A file as it was written.

    Args:
        bytes: size of the file.
        blake2b: hash of its content.
    """

    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run.

    Args:
        number: number of the checkpoint, counted from 1.
        files: files of the checkpoint, by path relative to the manifest's folder.
        about: facts that are needed before the files are read.
    """

    number: int
    files: dict[str, Written]
    about: dict[str, Any] = field(default_factory=dict)


class _Hashing:
    """A stream to save to: it hashes what is written and keeps the system's own error if writing failed."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._hash = hashlib.blake2b(digest_size=16)
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> Written:
        try:
            self._stream.close()
        except OSError as error:
            self.error = self.error or error
            raise
        return Written(self.size, self._hash.hexdigest())


def write_part(content: Mapping[str, Any], path: Path) -> Written:
    """Write a file of a checkpoint: temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        StorageError: The disk is full; says how much is needed and how much is free.
    """
    with replacing(path) as temporary:
        stream: Any = _Hashing(temporary)
        try:
            torch.save(content, stream)
            stream.flush()
        except Exception as error:  # torch has an error of its own for a stream that fails
            if stream.error is None or (full := no_room(path, stream.error, _size(content))) is None:
                raise
            raise full from error
        finally:
            try:
                written: Written = stream.close()
            except OSError:
                if stream.error is None:
                    raise
    return written


def _size(content: object) -> int:
    """Bytes of all tensors in plain nested values."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(_size, content.values()))
    return sum(map(_size, content)) if isinstance(content, (list, tuple)) else 0


def read_part(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Read a file of a checkpoint; code inside it is never run.

    Raises:
        StageError: The file is damaged or holds more than data.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises a different class for each kind of damage
        raise _unreadable(path, type(error).__name__) from error
    return content


def _unreadable(path: Path, why: str) -> StageError:
    return StageError(
        f"{path} cannot be read as a checkpoint ({why}). Remove {path.parent} to start the stage from its beginning."
    )


def checkpoints(manifest: Path) -> list[Checkpoint]:
    """The checkpoints that a manifest names, the newest first; none where there is no manifest.

    Raises:
        StageError: It is damaged, or names files elsewhere.
    """
    if not manifest.is_file():
        return []
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8"))["places"]
        listed = [
            Checkpoint(
                int(row["number"]),
                {str(name): Written(**about) for name, about in row["files"].items()},
                dict(row["about"]),
            )
            for row in rows
        ]
    except (*NOT_JSON, KeyError, TypeError, AttributeError, OSError) as error:
        raise _unreadable(manifest, type(error).__name__) from error
    root = manifest.parent.resolve()
    for name in (name for checkpoint in listed for name in checkpoint.files):
        if "\0" in name or not (root / name).resolve().is_relative_to(root):
            raise _unreadable(manifest, f"it names {name!r}, which is not in its folder")
    return listed


def commit(manifest: Path, files: Mapping[str, Written], about: Mapping[str, Any] | None = None) -> None:
    """Make files that are on disk the newest checkpoint: the last step of a save, without which it does not count.

    Files of no checkpoint, leftovers of killed saves included, are removed.
    """
    older = checkpoints(manifest)[: _KEPT - 1]
    number = older[0].number + 1 if older else 1
    kept = [Checkpoint(number, dict(files), dict(about or {})), *older]
    write_json(manifest, {"places": [asdict(checkpoint) for checkpoint in kept]})
    _clean(manifest, kept)


def _clean(manifest: Path, kept: list[Checkpoint]) -> None:
    remove_unfinished(manifest.parent)
    named = {Path(name).parts[0] for checkpoint in kept for name in checkpoint.files}
    for path in manifest.parent.glob("place-*"):
        if path.name in named:
            remove_unfinished(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    sync_folder(manifest.parent)


def next_name(manifest: Path) -> str:
    """A new name for the next checkpoint: of a file, or of a folder of files."""
    listed = checkpoints(manifest)
    return f"place-{listed[0].number + 1 if listed else 1}"


def newest_whole(manifest: Path) -> Checkpoint:
    """The newest checkpoint whose files are as they were written.

    Raises:
        StageError: There is none; names the file and what is wrong with it.
    """
    listed = checkpoints(manifest)
    if not listed:
        raise _unreadable(manifest, "no checkpoint is named in it" if manifest.is_file() else "there is no such file")
    trouble = [_trouble(manifest.parent, checkpoint) for checkpoint in listed]
    for checkpoint, wrong in zip(listed, trouble, strict=True):
        if wrong is None:
            if checkpoint is not listed[0]:
                warn(f"{trouble[0]}; the stage goes on from the checkpoint before it.")
            return checkpoint
    raise StageError(
        f"{trouble[0]}, and there is no whole checkpoint before it. Remove {manifest.parent} to start the "
        "stage from its beginning."
    )


def _trouble(folder: Path, checkpoint: Checkpoint) -> str | None:
    """What is wrong with the files of a checkpoint; None if nothing."""
    for name, written in checkpoint.files.items():
        path = folder / name
        try:
            if path.stat().st_size != written.bytes or _digest(path) != written.blake2b:
                return f"{path} cannot be read as a checkpoint (it is not as it was written)"
        except FileNotFoundError:
            return f"{path} cannot be read as a checkpoint (it is missing)"
        except OSError as error:
            return f"{path} cannot be read as a checkpoint ({error.strerror})"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class AtomicCheckpointIO(CheckpointIO):
    """Saves a checkpoint and commits it; loads the newest that is whole. Its path is that of the manifest.

    Lightning's own saving moves a file from TMPDIR, which is a copy, not a rename, across file systems, and never
    syncs it to disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        manifest = Path(path)
        name = f"{next_name(manifest)}.ckpt"
        commit(manifest, {name: write_part(checkpoint, manifest.with_name(name))})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint of this machine.

        Raises:
            StageError: No checkpoint is whole, or it holds more than data, or it was saved in shards.
        """
        manifest = Path(path)
        checkpoint = newest_whole(manifest)
        if "shards" in checkpoint.about or len(checkpoint.files) != 1:
            raise not_sharded("trainer.strategy fsdp2", "as it was")
        return read_part(manifest.parent / next(iter(checkpoint.files)), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a manifest and all checkpoints that it names."""
        manifest = Path(path)
        manifest.unlink(missing_ok=True)
        _clean(manifest, [])
