"""What the model is asked about clips whose features are kept: made once, and held in memory for later epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rbft.vlm.batch import PromptInputs

Keys = tuple[str, ...]
"""Keys of the features of all clips that a clip's rows are about."""


class HeldPrompts:
    """Holds the prompts of all rows about a clip, up to a number of bytes.

    They are held under the keys of the features they were made with, and so never given for a video that changed.
    What is given is a copy: a loader's process would otherwise keep a file open for each tensor it has handed on.

    Args:
        max_bytes: Nothing more is held when the tensors would exceed this together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: dict[int, tuple[Keys, tuple[PromptInputs, ...]]] = {}
        self._bytes = 0

    def load(self, clip: int, keys: Keys) -> list[PromptInputs] | None:
        """The prompts of a clip's rows, which share its features; None if they are not held under these keys.

        Args:
            clip: number of the clip.
            keys: keys of its features now.
        """
        known, prompts = self._held.get(clip, (None, ()))
        return _copies(prompts) if known == keys else None

    def store(self, clip: int, keys: Keys, prompts: Sequence[PromptInputs]) -> None:
        """Hold the prompts of a clip's rows in the place of those that were held before, if there is room.

        Args:
            clip: number of the clip.
            keys: keys of the features that `prompts` hold.
            prompts: its prompts; the first one's features are those of all that share its clip.
        """
        _, before = self._held.pop(clip, (None, ()))
        self._bytes -= _size(before)
        size = _size(prompts)
        if self._bytes + size <= self.max_bytes:
            self._held[clip] = keys, tuple(_copies(prompts))
            self._bytes += size


def _bare(prompts: Sequence[PromptInputs]) -> list[PromptInputs]:
    """The prompts, the features that several share in the first of them alone."""
    return [
        replace(prompt, encoded=None) if number and prompt.encoded is prompts[0].encoded else prompt
        for number, prompt in enumerate(prompts)
    ]


def _copies(prompts: Sequence[PromptInputs]) -> list[PromptInputs]:
    """Copies of the prompts that share features as these do."""
    copies = [prompt.each(torch.clone) for prompt in _bare(prompts)]
    return [
        replace(copy, encoded=copies[0].encoded) if prompt.encoded is prompts[0].encoded else copy
        for prompt, copy in zip(prompts, copies, strict=True)
    ]


def _size(prompts: Sequence[PromptInputs]) -> int:
    """Bytes of all tensors of some prompts, shared ones once."""
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    for prompt in _bare(prompts):
        prompt.each(count)
    return total
