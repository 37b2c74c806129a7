"""Decoded clips on disk: what was decoded once is mapped into memory by every later epoch, stage and run."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbft.disk_cache import DamagedEntryError
from rbft.errors import ConfigError
from rbft.files import expanded
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_entry import HEAD, MAGIC, READING, aligned, clip_folder, clip_key, hashed, pack_entry
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import resolve_inside
from rbft.video.reader import open_reader


class ClipCache:
    """Reads clips as :func:`rbft.video.clip.read_clip` does, and decodes each of them once.

    An entry is a file named by a hash of the video's content and of everything that decides on the frames, so a video
    that changes is never answered with its old frames, and equal videos share an entry whatever they are called. One of
    an earlier version, which told times of some videos otherwise, is held against the video once. An entry is
    written whole or not at all and never changed afterwards: any number of processes may use a folder at once. Whatever
    keeps the cache from working is said once in a warning, and videos are decoded instead.

    Clips with random frames are decoded every time: hardly two of them are equal, so they would fill the disk for
    nothing.

    Args:
        folder: folder of the entries; made with the first entry, for its owner alone.
        max_bytes: Nothing more is stored when the entries would exceed this together. With many processes the last
            clip of each may come on top.
        digest: Content hash of a video; cheap for a file it has seen and that has not changed since.
    """

    def __init__(self, folder: Path, max_bytes: int, digest: Callable[[Path], str]) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._entries = clip_folder(folder, max_bytes)
        self._digest = digest

    def read(
        self,
        path: str | Path,
        spec: ClipSpec,
        root: Path | None = None,
        rng: np.random.Generator | None = None,
    ) -> Clip:
        """Reads a clip from the cache, or from the video if it is not there.

        The frames may be written to; that changes neither the entry nor what others read.

        Args:
            path: the video, absolute or relative to `root`.
            spec: which frames, how large, what is taken from them, and what the file may cost.
            root: the folder the file has to lie in; None for no such bound.
            rng: source of chance for random sampling.

        Raises:
            VideoError: As :func:`rbft.video.clip.read_clip`.
            ValueError: As :func:`rbft.video.clip.read_clip`.
        """
        if spec.sampling.mode == "random":
            return read_clip(path, spec, root, rng)
        resolve_inside(root, path)  # a cached video is refused for the same reasons as one to decode
        # not what it resolves to: digests are remembered by name, and others ask for the file by this one
        file = Path(root or "") / path
        content = self._digest(file)
        key = clip_key(content, spec)
        clip, reading = self._entries.load(key, partial(_read_entry, key=key, path=path)) or (None, READING)
        if clip is not None and reading < READING:
            self._entries.drop(key)
            if _is_timed_so(clip, path, spec, root):
                self._entries.store(key, partial(_pack, key, clip))
            else:
                clip = None
        if clip is None:
            clip = read_clip(path, replace(spec, control="none"), root, rng)
            if self._digest(file) == content:  # not replaced while it was decoded
                self._entries.store(key, partial(_pack, key, clip))
        return clip.under(spec.control)


def default_folder() -> Path:
    """The folder named by RBFT_CACHE, else the person's own cache folder (XDG Base Directory Specification).

    Raises:
        ConfigError: There is none, because the user has no home folder.
    """
    if named := os.environ.get("RBFT_CACHE"):
        return expanded(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # others are to be ignored, says the specification
        return Path(base) / "rbft" / "clips"
    try:
        return Path.home() / ".cache" / "rbft" / "clips"
    except RuntimeError as error:
        raise ConfigError(
            f"data.cache_dir: no place for decoded clips ({error}). Name a folder, or set data.cache_clips to false."
        ) from error


def _is_timed_so(clip: Clip, path: str | Path, spec: ClipSpec, root: Path | None) -> bool:
    """Whether a clip has the times that its video is read with now, which choose its frames, and these are the same.

    Raises:
        VideoError: The video is refused.
    """
    part = spec.sampling.part
    with open_reader(path, root, spec.limits, often=part is not None) as reader:
        index = reader.index
    if index.misnamed:
        return False
    as_whole = part is not None or (index.duration == clip.duration and index.loss is None)
    return as_whole and (index.fps, index.steady) == (clip.fps, clip.steady)


def _pack(key: str, clip: Clip) -> bytes:
    return pack_entry(key, vars(clip), clip.frames.contiguous().numpy())


def _read_entry(entry: Path, key: str, path: str | Path) -> tuple[Clip, int]:
    with entry.open("rb") as stream:
        # an empty file cannot be mapped
        empty = os.fstat(stream.fileno()).st_size == 0
        # copy on write: consumers get ordinary writable memory, and the file stays as it is
        mapped = b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    return _unpack(mapped, key, path)


def _unpack(data: mmap.mmap | bytes, key: str, path: str | Path) -> tuple[Clip, int]:
    """The clip of an entry, its frames the memory of `data`, not a copy; and which reading it was made by.

    Raises:
        DamagedEntryError: The entry is not whole, or its header is not what was written under `key`.
    """
    if len(data) < HEAD.size:
        raise DamagedEntryError(f"it has {len(data)} bytes")
    magic, size, check = HEAD.unpack_from(data)
    header = data[HEAD.size : HEAD.size + size]
    if magic != MAGIC or hashed(header) != check:
        raise DamagedEntryError("its header is not as it was written")
    content = json.loads(header)
    if content["key"] != key:
        raise DamagedEntryError("it is the entry of another clip")
    start, shape = aligned(HEAD.size + size), content["shape"]
    if len(data) != start + math.prod(shape):
        raise DamagedEntryError(f"it has {len(data)} bytes instead of {start + math.prod(shape)}")
    frames = torch.frombuffer(data, dtype=torch.uint8, offset=start).view(shape)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content["values"].items()
    }
    return Clip(frames=frames, path=str(path), **values), content.get("reading", 0)
