"""What a model is fed: one clip with its prompt, the text it should answer, and rows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor


def _move(value: Tensor, device: torch.device) -> Tensor:
    # a host that reads what a GPU is still copying to it would read anything
    return value.to(device, non_blocking=device.type != "cpu")


@dataclass(frozen=True)
class EncodedClip:
    """A clip as the language model is fed it: its visual features, and what any prompt about it needs of it.

    Args:
        modality: What the family takes the features for.
        features: (N, H), one row for each visual token.
        deepstack: The features (N, H) of each further level, in families that feed several.
        joined: Whether the family takes the features of all clips as one tensor (1, sum of N, H).
        positions: Grids and time steps that token positions are made of, by the processor's own names.
        text: What stands for the clip in the text of a prompt.
    """

    modality: Literal["image", "video"]
    features: Tensor
    deepstack: tuple[Tensor, ...]
    joined: bool
    positions: dict[str, Tensor]
    text: str

    def each(self, change: Callable[[Tensor], Tensor]) -> EncodedClip:
        """A copy with every tensor changed."""
        return replace(
            self,
            features=change(self.features),
            deepstack=tuple(change(level) for level in self.deepstack),
            positions={name: change(value) for name, value in self.positions.items()},
        )


@dataclass(frozen=True)
class PromptInputs:
    """One prompt with its clip, as the processor gave it or with visual features that were computed before.

    Args:
        ids: Token ids (P,), visual placeholders included.
        types: Modality of each token (P,): 0 text, 1 image, 2 video; None where the processor gives none.
        vision: What the vision tower needs, by the processor's own names; empty for a text-only prompt, and where
            `encoded` is there instead.
        text: What stands for the clip in the prompt's text.
        encoded: The clip's visual features, if they need not be computed.
        key: key of the clip's features, under which they are stored once they are computed; None where they are not
            kept.
        video: Path of the clip's video, for messages; empty for a text-only prompt.
        extras: Whatever else the processor gives for each token (P,), by its own names; ERNIE's says which experts a
            token goes to.
        other: The same prompt about another clip, to compare with.
    """

    ids: Tensor
    types: Tensor | None
    vision: dict[str, Tensor]
    text: str = ""
    encoded: EncodedClip | None = None
    key: str | None = None
    video: str = ""
    extras: dict[str, Tensor] = field(default_factory=dict)
    other: PromptInputs | None = None

    @property
    def has_clip(self) -> bool:
        """Whether the prompt is about a clip."""
        return bool(self.vision) or self.encoded is not None

    def cut(self, length: int) -> PromptInputs:
        """Its first tokens."""
        return replace(
            self,
            ids=self.ids[:length],
            types=None if self.types is None else self.types[:length],
            extras={name: value[:length] for name, value in self.extras.items()},
        )

    def followed_by(self, text: Tensor) -> PromptInputs:
        """The same with more tokens of text (T,) after."""
        count = len(text)
        return replace(
            self,
            ids=torch.cat([self.ids, text.to(self.ids.device)]),
            types=None if self.types is None else torch.cat([self.types, self.types.new_zeros(count)]),
            extras={name: torch.cat([value, value.new_zeros(count)]) for name, value in self.extras.items()},
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> PromptInputs:
        """A copy with every tensor changed."""
        return replace(
            self,
            ids=change(self.ids),
            types=None if self.types is None else change(self.types),
            vision={name: change(value) for name, value in self.vision.items()},
            encoded=None if self.encoded is None else self.encoded.each(change),
            extras={name: change(value) for name, value in self.extras.items()},
            other=None if self.other is None else self.other.each(change),
        )

    def to(self, device: torch.device | str) -> PromptInputs:
        """A copy on `device`."""
        return self.each(partial(_move, device=torch.device(device)))


@dataclass(frozen=True)
class Item:
    """One row before batching.

    Args:
        index: Position of the example in its data set.
        prompt: The prompt and its clip.
        target: Token ids of the answer, end of turn included (T,); empty where nothing is supervised.
        weight: Weight of each token in the loss.
        normalizer: Supervised tokens of the whole optimiser step this row belongs to, whatever they weigh.
        value: A number that the objective gave this row, such as the probability that it is to learn.
    """

    index: int
    prompt: PromptInputs
    target: Tensor
    weight: float = 1.0
    normalizer: float = 1.0
    value: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together; padding happens where they meet the model.

    Args:
        indices: Position of each row's example in its data set.
        prompts: One per row.
        targets: Token ids of each answer.
        weights: (B,) weight of each row's tokens in the loss.
        normalizer: Supervised tokens of the whole optimiser step, all ranks and micro-batches, whatever they weigh.
        clips: For each row the number of its clip in the batch; rows of one clip stand together.
        values: (B,) a number that the objective gave each row, such as the probability that it is to learn.
    """

    indices: tuple[int, ...]
    prompts: tuple[PromptInputs, ...]
    targets: tuple[Tensor, ...]
    weights: Tensor
    normalizer: float
    clips: tuple[int, ...]
    values: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device | str) -> Batch:
        """A copy on `device`, in which rows of one clip share its inputs as they do here."""
        return self.each(partial(_move, device=torch.device(device)))

    def pin_memory(self) -> Batch:
        """A copy in memory that a GPU copies from while the host goes on; asked for by torch's loader."""
        return self.each(torch.Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A copy with every tensor changed, in which rows of one clip share its inputs as they do here."""
        prompts: list[PromptInputs] = []
        for row, prompt in enumerate(self.prompts):
            if row and self.clips[row] == self.clips[row - 1]:
                bare = replace(prompt, vision={}, encoded=None).each(change)
                prompts.append(replace(bare, vision=prompts[-1].vision, encoded=prompts[-1].encoded))
            else:
                prompts.append(prompt.each(change))
        return replace(
            self,
            prompts=tuple(prompts),
            targets=tuple(change(target) for target in self.targets),
            weights=change(self.weights),
            values=change(self.values),
        )


def collate(clips: Sequence[Sequence[Item]]) -> Batch:
    """Put the rows of several clips together."""
    items = [item for clip in clips for item in clip]
    return Batch(
        indices=tuple(item.index for item in items),
        prompts=tuple(item.prompt for item in items),
        targets=tuple(item.target for item in items),
        weights=torch.tensor([item.weight for item in items], dtype=torch.float32),
        normalizer=items[0].normalizer,
        clips=tuple(number for number, clip in enumerate(clips) for _ in clip),
        values=torch.tensor([item.value for item in items], dtype=torch.float32),
    )


@dataclass(frozen=True)
class Rows:
    """Padded token rows.

    Args:
        ids: (B, L) token ids.
        mask: (B, L) 1 for tokens, 0 for padding.
        types: (B, L) modality of each token, or None.
        lengths: (B,) tokens in each row.
        extras: Whatever else there is of each token (B, L), 0 where a prompt has none of it.
    """

    ids: Tensor
    mask: Tensor
    types: Tensor | None
    lengths: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)


def pad_rows(prompts: Sequence[PromptInputs], targets: Sequence[Tensor] | None, pad_id: int) -> Rows:
    """Pad prompts, each followed by its target if there are any, on the right to one length."""
    tails = targets if targets is not None else [prompt.ids[:0] for prompt in prompts]
    lengths = [len(prompt.ids) + len(tail) for prompt, tail in zip(prompts, tails, strict=True)]
    width, device = max(lengths), prompts[0].ids.device
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long, device=device)
    mask = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    types = None if prompts[0].types is None else torch.zeros((len(prompts), width), dtype=torch.int, device=device)
    for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        end = len(prompt.ids)
        ids[row, :end] = prompt.ids
        ids[row, end : end + len(tail)] = tail
        mask[row, : lengths[row]] = 1
        if types is not None and prompt.types is not None:
            types[row, :end] = prompt.types
    extras: dict[str, Tensor] = {}
    for row, prompt in enumerate(prompts):
        for name, value in prompt.extras.items():
            whole = extras.setdefault(name, torch.zeros((len(prompts), width), dtype=value.dtype, device=device))
            whole[row, : len(value)] = value
    return Rows(ids, mask, types, torch.tensor(lengths, device=device), extras)
