"""What enters the first trained layer, kept for each row: in memory, and on disk for other processes and runs."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rbft.disk_cache import BoundedFolder, DamagedEntryError, Wording
from rbft.vlm.feature_cache import weights_digest

# To be raised when the layout of an entry changes, or the states that the wrapper computes of the same row.
_SCHEMA = 1
_SUFFIX = ".safetensors"
_WORDING = Wording("cache of states", "states", "read by the lower layers", "data.state_cache_gb", "data.cache_states")
_NUMBERS = "blake2b of the numbers"


class StateCache:
    """Keeps the states of rows under a hash of all that they depend on.

    Entries on disk are as those of `rbft.vlm.feature_cache.FeatureCache`: whole or absent, compared with their hash,
    and any number of processes may use the folder. What a process stored or read it also keeps in memory, as far as
    that goes.

    Args:
        folder: folder of the entries; made with the first entry, for its owner alone. None: nothing is on disk.
        max_bytes: Nothing more is stored on disk when the entries would exceed this together.
        memory_bytes: Nothing more is kept in memory when the states would exceed this together.
    """

    def __init__(self, folder: Path | None, max_bytes: int, memory_bytes: int) -> None:
        self.max_bytes, self.memory_bytes = max_bytes, memory_bytes
        self._entries = None if folder is None else BoundedFolder(folder, _SUFFIX, max_bytes, _WORDING)
        self._held: dict[str, Tensor] = {}
        self._bytes = 0

    def in_memory_only(self) -> StateCache:
        """An empty one without a folder, for states that no other process could take over."""
        return StateCache(None, 0, self.memory_bytes)

    def load(self, key: str) -> Tensor | None:
        """The states (L, H) stored under a key, in the host's memory; None if there are none."""
        held = self._held.get(key)
        if held is not None or self._entries is None:
            return held
        # what is first met while validating may be trained on
        with torch.inference_mode(mode=False):
            read = self._entries.load(key, partial(_read, key=key))
        if read is not None:
            self._hold(key, read)
        return read

    def store(self, key: str, states: Tensor) -> None:
        """Keep the states (L, H) of a row, unless they are there already."""
        with torch.inference_mode(mode=False):
            kept = states.detach().cpu().contiguous().clone()
        self._hold(key, kept)
        if self._entries is not None:
            self._entries.store(key, partial(_pack, key, kept))

    def clear(self) -> None:
        """Free the memory; what is on disk stays."""
        self._held.clear()
        self._bytes = 0

    def _hold(self, key: str, states: Tensor) -> None:
        if key not in self._held and self._bytes + states.nbytes <= self.memory_bytes:
            self._held[key] = states
            self._bytes += states.nbytes


def state_key(model: str, clip: str, *tokens: Tensor) -> str:
    """The key of a row's states.

    Args:
        model: Hash of what computes them.
        clip: Hash of the features of the row's clip, and of all these depend on.
        tokens: What stands in the row: token ids, and what says which of them sees which.
    """
    total = hashlib.blake2b(json.dumps([_SCHEMA, model, clip]).encode(), digest_size=16)
    for value in tokens:
        numbers = value.detach().cpu().long().contiguous()
        total.update(json.dumps(list(numbers.shape)).encode())
        total.update(numbers.numpy().data)
    return total.hexdigest()


def _pack(key: str, states: Tensor) -> bytes:
    tensors, about = {"states": states}, {"key": key}
    return save(tensors, about | {_NUMBERS: weights_digest(tensors, [about])})


def _read(entry: Path, key: str) -> Tensor:
    """The states of an entry.

    Raises:
        DamagedEntryError: The entry is not as it was written under `key`.
    """
    try:
        with safe_open(str(entry), framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedEntryError(str(error)) from error
    if about.pop(_NUMBERS, None) != weights_digest(tensors, [about]):
        raise DamagedEntryError("its content is not as it was written")
    if about["key"] != key:
        raise DamagedEntryError("it is the entry of another row")
    # the mapped file would count as memory that can be taken back, and be read from disk again
    return torch.clone(tensors["states"])
