"""What a model is fed: one clip with its prompt, the text it should answer, and rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptInputs:
    """One prompt with its clip, as the processor gave it.

    Args:
        ids: Token ids (P,), visual placeholders included.
        types: Modality of each token (P,): 0 text, 1 image, 2 video; None where the processor gives none.
        vision: What the vision tower needs, by the processor's own names; empty for a text-only prompt.
    """

    ids: Tensor
    types: Tensor | None
    vision: dict[str, Tensor]

    def to(self, device: torch.device | str) -> PromptInputs:
        """A copy on `device`."""
        vision = {name: value.to(device, non_blocking=True) for name, value in self.vision.items()}
        return PromptInputs(self.ids.to(device), None if self.types is None else self.types.to(device), vision)


@dataclass(frozen=True)
class Item:
    """One row before batching.

    Args:
        index: Position of the example in its data set.
        prompt: The prompt and its clip.
        target: Token ids of the answer, end of turn included (T,); empty where nothing is supervised.
        weight: Weight of the example in the loss.
        normalizer: Sum of weight x supervised tokens over the whole optimiser step this row belongs to.
    """

    index: int
    prompt: PromptInputs
    target: Tensor
    weight: float = 1.0
    normalizer: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together; padding happens where they meet the model.

    Args:
        indices: Position of each example in its data set.
        prompts: One per row.
        targets: Token ids of each answer.
        weights: (B,) weight of each row in the loss.
        normalizer: Sum of weight x supervised tokens over the whole optimiser step, all ranks and micro-batches.
    """

    indices: tuple[int, ...]
    prompts: tuple[PromptInputs, ...]
    targets: tuple[Tensor, ...]
    weights: Tensor
    normalizer: float

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device | str) -> Batch:
        """A copy on `device`."""
        return replace(
            self,
            prompts=tuple(prompt.to(device) for prompt in self.prompts),
            targets=tuple(target.to(device) for target in self.targets),
            weights=self.weights.to(device),
        )


def collate(items: Sequence[Item]) -> Batch:
    """Put rows together."""
    return Batch(
        indices=tuple(item.index for item in items),
        prompts=tuple(item.prompt for item in items),
        targets=tuple(item.target for item in items),
        weights=torch.tensor([item.weight for item in items], dtype=torch.float32),
        normalizer=items[0].normalizer,
    )


@dataclass(frozen=True)
class Rows:
    """Padded token rows.

    Args:
        ids: (B, L) token ids.
        mask: (B, L) 1 for tokens, 0 for padding.
        types: (B, L) modality of each token, or None.
        lengths: (B,) tokens in each row.
    """

    ids: Tensor
    mask: Tensor
    types: Tensor | None
    lengths: Tensor


def pad_rows(
    prompts: Sequence[PromptInputs],
    targets: Sequence[Tensor] | None,
    pad_id: int,
    side: Literal["left", "right"],
) -> Rows:
    """Pad prompts, each followed by its target if there are any, to one length."""
    tails = targets if targets is not None else [prompt.ids[:0] for prompt in prompts]
    lengths = [len(prompt.ids) + len(tail) for prompt, tail in zip(prompts, tails, strict=True)]
    width, device = max(lengths), prompts[0].ids.device
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long, device=device)
    mask = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    types = None if prompts[0].types is None else torch.zeros((len(prompts), width), dtype=torch.int, device=device)
    for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        start = width - lengths[row] if side == "left" else 0
        end = start + len(prompt.ids)
        ids[row, start:end] = prompt.ids
        ids[row, end : end + len(tail)] = tail
        mask[row, start : start + lengths[row]] = 1
        if types is not None and prompt.types is not None:
            types[row, start:end] = prompt.types
    return Rows(ids, mask, types, torch.tensor(lengths, device=device))
