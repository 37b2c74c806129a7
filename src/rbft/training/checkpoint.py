"""Places in a run that can be continued from: whole or absent, verified by hash, and read as data only."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from rbft.errors import StageError
from rbft.files import NOT_JSON, no_room, remove_unfinished, replacing, sync_folder, write_json

PLACES = "last.json"
"""The manifest of the places in a folder of checkpoints; a trainer is told its path as that of its checkpoint."""

_KEPT = 2  # the newest, and the one before it should the disk lose the newest


def not_sharded(how: str, strategy: str) -> StageError:
    """The refusal to go on from a place that another trainer.strategy saved."""
    return StageError(
        f"this stage was interrupted under {how} and cannot go on; set trainer.strategy {strategy}, or add --restart."
    )


@dataclass(frozen=True)
class Written:
    """A file as it was written.

    Args:
        bytes: Its size.
        blake2b: Hash of its content.
    """

    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Place:
    """A place in a run.

    Args:
        number: Places of a stage are counted from 1.
        files: What it consists of, by path relative to the manifest's folder.
        about: What has to be known before they are read.
    """

    number: int
    files: dict[str, Written]
    about: dict[str, Any] = field(default_factory=dict)


class _Hashing:
    """A stream to save to, that knows the hash of what went through, and the system's own error if writing failed."""

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
    """Write a file of a place: temporary file in the same folder, fsync, rename, fsync of the folder.

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
    """Read a file of a place; code inside it is never run.

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


def places(manifest: Path) -> list[Place]:
    """The places that a manifest names, the newest first; none where there is no manifest.

    Raises:
        StageError: It is damaged, or names files elsewhere.
    """
    if not manifest.is_file():
        return []
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8"))["places"]
        found = [
            Place(
                int(row["number"]),
                {str(name): Written(**about) for name, about in row["files"].items()},
                dict(row["about"]),
            )
            for row in rows
        ]
    except (*NOT_JSON, KeyError, TypeError, AttributeError, OSError) as error:
        raise _unreadable(manifest, type(error).__name__) from error
    root = manifest.parent.resolve()
    for name in (name for place in found for name in place.files):
        if "\0" in name or not (root / name).resolve().is_relative_to(root):
            raise _unreadable(manifest, f"it names {name!r}, which is not in its folder")
    return found


def commit(manifest: Path, files: Mapping[str, Written], about: Mapping[str, Any] | None = None) -> None:
    """Make files that are on disk the newest place; the last thing of a save, and the one that counts.

    What no place consists of any more, leftovers of killed saves included, is removed.
    """
    older = places(manifest)[: _KEPT - 1]
    number = older[0].number + 1 if older else 1
    kept = [Place(number, dict(files), dict(about or {})), *older]
    write_json(manifest, {"places": [asdict(place) for place in kept]})
    _clean(manifest, kept)


def _clean(manifest: Path, kept: list[Place]) -> None:
    remove_unfinished(manifest.parent)
    named = {Path(name).parts[0] for place in kept for name in place.files}
    for path in manifest.parent.glob("place-*"):
        if path.name in named:
            remove_unfinished(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    sync_folder(manifest.parent)


def next_name(manifest: Path) -> str:
    """A name for the newest place that no other has; of a file, or of a folder of files."""
    found = places(manifest)
    return f"place-{found[0].number + 1 if found else 1}"


def newest_whole(manifest: Path) -> Place:
    """The newest place whose files are as they were written.

    Raises:
        StageError: There is none; names the file and what is wrong with it.
    """
    found = places(manifest)
    if not found:
        raise _unreadable(manifest, "no place is named in it" if manifest.is_file() else "there is no such file")
    trouble = [_trouble(manifest.parent, place) for place in found]
    for place, wrong in zip(found, trouble, strict=True):
        if wrong is None:
            if place is not found[0]:
                warnings.warn(f"{trouble[0]}; the stage goes on from the place before it.", stacklevel=2)
            return place
    raise StageError(
        f"{trouble[0]}, and there is no whole place before it. Remove {manifest.parent} to start the "
        "stage from its beginning."
    )


def _trouble(folder: Path, place: Place) -> str | None:
    """What is wrong with the files of a place; None if nothing."""
    for name, written in place.files.items():
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
    """Saves a place and commits it; loads the newest that is whole. The path of a checkpoint is that of the manifest.

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
            StageError: No place is whole, or it holds more than data, or it was saved in shards.
        """
        manifest = Path(path)
        place = newest_whole(manifest)
        if "shards" in place.about or len(place.files) != 1:
            raise not_sharded("trainer.strategy fsdp2", "as it was")
        return read_part(manifest.parent / next(iter(place.files)), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a manifest and all places that it names."""
        manifest = Path(path)
        manifest.unlink(missing_ok=True)
        _clean(manifest, [])
