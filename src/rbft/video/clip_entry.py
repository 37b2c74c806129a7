"""An entry of the clip cache: its name, and its bytes. Without torch, as the processes of a survey write them too."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np

from rbft.disk_cache import BoundedFolder, Wording
from rbft.video.clip_spec import ClipSpec

CLIP_FIELDS = ("frames", "timestamps", "indices", "fps", "duration", "total_num_frames", "path", "steady")
"""What `rbft.video.clip.Clip` is made of."""
HEAD = struct.Struct("<8sI16s")
"""What an entry begins with: magic, bytes of the JSON header after it, their hash."""
MAGIC = b"rbftclip"

# To be raised when the layout of an entry changes, or the frames that the reader gives for the same request.
_SCHEMA = 2
READING = 2
"""To be raised when the reader gives other frames of some videos only: entries from before are looked at once more."""
_ALIGNMENT = 64  # of the first frame in the file, as tensor code likes it
_WORDING = Wording("clip cache", "clips", "decoded", "data.cache_gb", "data.cache_clips")


def clip_folder(folder: Path, max_bytes: int) -> BoundedFolder:
    """The folder of entries; see `rbft.video.clip_cache.ClipCache`."""
    return BoundedFolder(folder, ".clip", max_bytes, _WORDING)


def content_name(digest: str, retimed: bool) -> str:
    """What a video's content is called in keys of what cannot be held against the video again.

    Args:
        digest: hash of its content.
        retimed: as `rbft.video.frame_index.FrameIndex.retimed`.
    """
    return f"{digest}, reading {READING}" if retimed else digest


def clip_key(content: str, spec: ClipSpec) -> str:
    """A hash of everything that a clip without random frames depends on, the version of the decoder included.

    Args:
        content: hash of the video's content.
        spec: how the clip is read; its control is not part of the key, as clips are kept as they were before it.
    """
    reading = {name: value for name, value in asdict(spec).items() if name != "control"}
    request = [_SCHEMA, CLIP_FIELDS, av.__version__, content, reading]
    return hashed(json.dumps(request).encode()).hex()


def hashed(data: bytes) -> bytes:
    """By which a header is known to be whole."""
    return hashlib.blake2b(data, digest_size=16).digest()


def aligned(position: int) -> int:
    """Where the frames begin after a header that ends at `position`."""
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def pack_entry(key: str, clip: Mapping[str, Any], frames: np.ndarray) -> bytes:
    """The content of an entry; of all fields only the path stays out, because equal videos have several.

    Args:
        key: name of the entry.
        clip: The fields of the clip, but for its frames.
        frames: These, (T, C, H, W) uint8, contiguous.
    """
    values = {name: clip[name] for name in CLIP_FIELDS if name not in ("frames", "path")}
    header = json.dumps({"key": key, "shape": list(frames.shape), "values": values, "reading": READING}).encode()
    start = HEAD.pack(MAGIC, len(header), hashed(header)) + header
    return b"".join((start.ljust(aligned(len(start)), b"\0"), frames.data))
