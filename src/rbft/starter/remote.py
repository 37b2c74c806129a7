"""Folders of clips on remote storage: what is there, and a copy of it on this machine once a person has agreed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rbft.data.formats.on_disk import is_video, listing
from rbft.data.formats.rows import TABLE_SUFFIXES
from rbft.data.records import relative_path
from rbft.errors import ConfigError, DataError
from rbft.files import append_jsonl, archive, read_jsonl, remove_unfinished, replacing
from rbft.video.image_sequence import SUFFIXES

SCHEMES = ("s3", "s3a", "gs", "gcs", "hf")
"""Where folders may lie: Amazon S3 and what speaks like it, Google Cloud Storage, the Hugging Face Hub."""
COPIED = ".rbft-fetch.jsonl"
"""File of a copy that says what was copied from where."""

_ABANDONED_SECONDS = 600.0  # without a byte: what is being written is younger
_LISTS = (*TABLE_SUFFIXES, ".json", ".txt")
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be copied.

    Args:
        path: path below the folder, with forward slashes.
        address: its name in the remote file system.
        size: bytes.
        version: what changes when its content does, as far as the storage says it.
    """

    path: str
    address: str
    size: int
    version: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on remote storage.

    Args:
        url: its address, as a person wrote it.
        files: videos, images, tables and lists in it, by path.
        left_out: number of other files by suffix.
        storage: the file system of fsspec that it lies in.
    """

    url: str
    files: tuple[RemoteFile, ...]
    left_out: Counter[str]
    storage: Any


def is_remote(name: str) -> bool:
    """Whether a person named an address rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def list_remote(url: str) -> RemoteFolder:
    """Look at a folder on remote storage, of which only names and sizes are read.

    Args:
        url: address such as s3://bucket/clips, gs://bucket/clips or hf://datasets/OWNER/NAME/clips. Who may read it is
            settled by the storage's own means, such as environment variables.

    Raises:
        ConfigError: The address is of another kind, or the package that speaks to this storage is missing.
        DataError: Nothing is there that could be copied, it cannot be listed, or a name is no plain path.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or "::" in url:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"{url}: the address must begin with one of {known} and name one storage.")
    if "@" in rest.split("/")[0]:
        raise ConfigError(
            f"{scheme}://...: leave keys and passwords out of the address; the storage's own environment variables and "
            "files hold them."
        )
    from fsspec.core import url_to_fs

    with _told(url):
        storage, top = url_to_fs(url)
        found: dict[str, dict[str, Any]] = storage.find(top, detail=True)
    files, others = [], Counter[str]()
    for address, info in sorted(found.items()):
        path = PurePosixPath(address).name if address == top else address.removeprefix(top.rstrip("/")).lstrip("/")
        suffix = PurePosixPath(path).suffix.lower()
        seen = all(is_video(f"{part}.mp4") for part in PurePosixPath(path).parts)  # hidden folders are a system's own
        if not seen or not (is_video(PurePosixPath(path).name) or suffix in (*SUFFIXES, *_LISTS)):
            others[suffix or "no suffix"] += 1
            continue
        version = next((f"{key} {info[key]}" for key in _VERSIONS if info.get(key) is not None), "")
        files.append(RemoteFile(relative_path(path, url, "the folder"), address, int(info["size"]), version))
    if not files:
        raise DataError(f"{url}: no videos, images or tables are there ({others.total()} other files).")
    return RemoteFolder(url, tuple(files), others, storage)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong with a storage, in one line: each has errors of its own, which share no class."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{url}: the package that reads this storage is missing ({error}): pip install 'rbft[remote]'."
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{url}: there is no such folder.") from error
    except (ConfigError, DataError):
        raise
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{url}: cannot be read ({words}). Are you allowed to, and is the network there?") from error


def still_to_copy(remote: RemoteFolder, folder: Path) -> list[RemoteFile]:
    """What of a remote folder is not in its copy yet, or has changed there since.

    Args:
        remote: the remote folder.
        folder: the copy, which need not be there.

    Raises:
        ConfigError: The folder is a copy of something else, or holds a file of that name which is no copy.
    """
    copied = _copied(folder)
    # with or without a slash at its end an address is the same
    if others := {row["url"].rstrip("/") for row in copied.values()} - {remote.url.rstrip("/")}:
        raise ConfigError(f"--to {folder}: holds a copy of {min(others)}; name another folder.")
    missing = []
    for file in remote.files:
        target, known = folder / file.path, copied.get(file.path)
        there = target.is_file()
        if there and known is None:
            raise ConfigError(
                f"--to {folder}: {file.path} is there already and was not copied from {remote.url}; "
                "name another folder."
            )
        same = known is not None and (known["size"], known["version"]) == (file.size, file.version)
        if not (there and same):
            missing.append(file)
    return missing


def changed_here(folder: Path) -> list[str]:
    """Paths of copies that somebody changed since, such as a table of labels in which clips were labelled."""
    return [path for path, known in _copied(folder).items() if _is_changed(folder / path, known)]


def _copied(folder: Path) -> dict[str, dict[str, Any]]:
    """What was copied to a folder, by path; the last copy of each file counts."""
    manifest = folder / COPIED
    return {row["path"]: row for _, row in read_jsonl(manifest)} if manifest.is_file() else {}


def _is_changed(target: Path, known: Mapping[str, Any]) -> bool:
    if not target.is_file():
        return False
    status = target.stat()
    # copies of earlier versions do not say when they were made
    return (status.st_size, status.st_mtime_ns) != (known["size"], known.get("modified", status.st_mtime_ns))


def copy_files(
    remote: RemoteFolder, files: Sequence[RemoteFile], folder: Path, report: Callable[[str, int, int], None]
) -> list[Path]:
    """Copy files of a remote folder; each is there whole or not at all, and a later call goes on after it.

    Args:
        remote: the remote folder.
        files: what of it to copy, as `still_to_copy` says.
        folder: where to; made if it is not there.
        report: function that is called with what is done, how much of it, and of how much.

    Returns:
        New names of files that somebody had changed here, and that a newer one took the place of.

    Raises:
        DataError: A file cannot be read, or comes short.
        StorageError: There is no room for it.
    """
    for parent in {(folder / file.path).parent for file in files}:
        remove_unfinished(parent, _ABANDONED_SECONDS, {Path(file.path).name for file in files})
    copied, archived = _copied(folder), []
    for number, file in enumerate(files, start=1):
        target = folder / file.path
        with replacing(target, file.size) as temporary:
            with _told(f"{remote.url}: {file.path}"):
                remote.storage.get_file(file.address, str(temporary))
            if (size := temporary.stat().st_size) != file.size:
                raise DataError(f"{remote.url}: {file.path} came with {size:,} of {file.size:,} bytes; fetch it again.")
            if file.path in copied and _is_changed(target, copied[file.path]) and (old := archive(target)) is not None:
                archived.append(old)
        row = {"path": file.path, "url": remote.url, "size": file.size, "version": file.version}
        append_jsonl(folder / COPIED, [row | {"modified": target.stat().st_mtime_ns}])
        report("files copied", number, len(files))
    return archived


def described(files: Sequence[RemoteFile]) -> str:
    """How many files and how large they are together, in words."""
    size = sum(file.size for file in files)
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {size / unit:.1f} {name}"


def kinds(left_out: Counter[str]) -> str:
    """Other files by suffix, in words; empty where there are none."""
    return listing([f"{suffix} {count}" for suffix, count in left_out.most_common()]) if left_out else ""
