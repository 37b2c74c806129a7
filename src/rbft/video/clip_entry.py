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

from rbft.bounded_folder import BoundedFolder, Wording
from rbft.video.budget import CellBudget
from rbft.video.container import DEFAULT_LIMITS, Limits
from rbft.video.sampling import FrameSampling

CLIP_FIELDS = ("frames", "timestamps", "indices", "fps", "duration", "total_num_frames", "path")
"""What `rbft.video.clip.Clip` is made of."""
HEAD = struct.Struct("<8sI16s")
"""What an entry begins with: magic, bytes of the JSON header behind it, their hash."""
MAGIC = b"rbftclip"

# To be raised when the layout of an entry changes, or the frames that the reader gives for the same request.
_SCHEMA = 1
_ALIGNMENT = 64  # of the first frame in the file, as tensor code likes it
_WORDING = Wording("clip cache", "clips", "decoded", "data.cache_gb", "data.cache_clips")


def clip_folder(folder: Path, max_bytes: int) -> BoundedFolder:
    """The folder of entries; see `rbft.video.clip_cache.ClipCache`."""
    return BoundedFolder(folder, ".clip", max_bytes, _WORDING)


def clip_key(
    content: str,
    sampling: FrameSampling,
    max_pixels: int | None,
    size: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    multiple: int = 2,
    budget: CellBudget | None = None,
) -> str:
    """A hash of everything that a clip without random frames depends on, the version of the decoder included.

    Args:
        content: Hash of the video's content.
        sampling: As for reading, like the others.
        max_pixels: Most pixels of a frame.
        size: Height and width to scale to.
        limits: What the file may cost.
        multiple: What both sides of a scaled frame are multiples of.
        budget: Bound on all frames together.
    """
    # a clip of a whole video is named as it was before there were parts
    frames = {name: value for name, value in asdict(sampling).items() if name != "part" or value is not None}
    request = [
        _SCHEMA,
        CLIP_FIELDS,
        av.__version__,
        content,
        frames,
        max_pixels,
        size,
        asdict(limits),
        multiple,
        None if budget is None else asdict(budget),
    ]
    return hashed(json.dumps(request).encode()).hex()


def hashed(data: bytes) -> bytes:
    """By which a header is known to be whole."""
    return hashlib.blake2b(data, digest_size=16).digest()


def aligned(position: int) -> int:
    """Where the frames begin behind a header that ends at `position`."""
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def pack_entry(key: str, clip: Mapping[str, Any], frames: np.ndarray) -> bytes:
    """The content of an entry; of all fields only the path stays out, because equal videos have several.

    Args:
        key: Its name.
        clip: The fields of the clip, but for its frames.
        frames: These, (T, C, H, W) uint8, contiguous.
    """
    values = {name: clip[name] for name in CLIP_FIELDS if name not in ("frames", "path")}
    header = json.dumps({"key": key, "shape": list(frames.shape), "values": values}).encode()
    start = HEAD.pack(MAGIC, len(header), hashed(header)) + header
    return b"".join((start.ljust(aligned(len(start)), b"\0"), frames.data))
