"""Visual features on disk: a clip that a frozen vision tower has encoded once is not encoded, nor decoded, again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rbft.disk_cache import BoundedFolder, DamagedEntryError, Wording
from rbft.vlm.batch import EncodedClip

# To be raised when the layout of an entry changes, or the features that the wrapper computes of the same clip.
_SCHEMA = 1
_SUFFIX = ".safetensors"
_WORDING = Wording("feature cache", "visual features", "encoded", "data.feature_cache_gb", "data.cache_features")
_NUMBERS = "blake2b of the numbers"


class FeatureCache:
    """Keeps encoded clips, each in a safetensors file named by a hash of all that its features depend on.

    An entry is written whole or not at all and never changed afterwards, so that any number of processes may use a
    folder at once. It is mapped into memory, not copied, and its content is compared with the hash it was written with.
    Whatever keeps the folder from working is said once in a warning, and clips are encoded instead.

    Args:
        folder: folder of the entries; made with the first entry, for its owner alone.
        max_bytes: Nothing more is stored when the entries would exceed this together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._entries = BoundedFolder(folder, _SUFFIX, max_bytes, _WORDING)

    def load(self, key: str) -> EncodedClip | None:
        """The clip stored under a key; None if there is none."""
        return self._entries.load(key, partial(_read, key=key))

    def store(self, key: str, clip: EncodedClip) -> None:
        """Keep a clip, unless it is there already."""
        self._entries.store(key, partial(_pack, key, clip))


def feature_key(*parts: str) -> str:
    """The key of a clip's features.

    Args:
        parts: Hashes of what they depend on: the clip, its processing, and what computes them.
    """
    return _hash(json.dumps([_SCHEMA, *parts]).encode())


def weights_digest(weights: Mapping[str, Tensor], settings: Sequence[object]) -> str:
    """A hash of tensors, by name and to the last bit, and of what else decides what is computed with them."""
    total = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name in sorted(weights):
        _update(total, name, weights[name])
    return total.hexdigest()


def hardware(device: torch.device) -> list[object]:
    """What of a machine decides on the last bits of a result."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return [device.type, kind, torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32]


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _update(total: hashlib.blake2b, name: str, value: Tensor) -> None:
    total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
    total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _pack(key: str, clip: EncodedClip) -> bytes:
    tensors = {"features": clip.features}
    tensors |= {f"deepstack.{level}": value for level, value in enumerate(clip.deepstack)}
    tensors |= {f"positions.{name}": value for name, value in clip.positions.items()}
    # copies: two entries of a dictionary must not share memory, says the format's writer
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {"key": key, "modality": clip.modality, "joined": str(clip.joined), "text": clip.text}
    return save(tensors, about | {_NUMBERS: weights_digest(tensors, [about])})


def _read(entry: Path, key: str) -> EncodedClip:
    """The clip of an entry; its tensors are the mapped file, which stays as it is if they are written to.

    Raises:
        DamagedEntryError: The entry is not as it was written under `key`.
    """
    try:
        with safe_open(str(entry), framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except SafetensorError as error:
        raise DamagedEntryError(str(error)) from error
    if about.pop(_NUMBERS, None) != weights_digest(tensors, [about]):
        raise DamagedEntryError("its content is not as it was written")
    if about["key"] != key:
        raise DamagedEntryError("it is the entry of another clip")
    levels = sum(name.startswith("deepstack.") for name in tensors)
    return EncodedClip(
        modality=cast(Literal["image", "video"], about["modality"]),
        features=tensors["features"],
        deepstack=tuple(tensors[f"deepstack.{level}"] for level in range(levels)),
        joined=about["joined"] == str(True),
        positions={
            name.removeprefix("positions."): value for name, value in tensors.items() if name.startswith("positions.")
        },
        text=about["text"],
    )
