"""Where a batch does not fit in memory it is computed in pieces, with the same gradients and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.memory import is_oom_error
from torch import Tensor

from rbft.errors import ModelError, warn
from rbft.vlm.batch import Batch

T = TypeVar("T")

_LESS = (
    "lower data.num_frames, data.max_pixels or data.max_visual_tokens, or set model.activation_checkpointing to true"
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory did not suffice; libraries beside torch's allocator (cuBLAS, cuDNN) have errors of their own."""
    return is_oom_error(error) or any("_STATUS_ALLOC_FAILED" in str(part) for part in error.args)


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch; the normaliser stays that of the whole step."""
    return replace(
        batch,
        indices=tuple(batch.indices[row] for row in rows),
        prompts=tuple(batch.prompts[row] for row in rows),
        targets=tuple(batch.targets[row] for row in rows),
        weights=batch.weights[list(rows)],
        values=batch.values[list(rows)],
        clips=tuple(batch.clips[row] for row in rows),
    )


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """A batch in up to so many pieces of whole clips: what is asked about a clip is computed together."""
    clips = list(dict.fromkeys(batch.clips))
    parts = [set(part.tolist()) for part in np.array_split(clips, min(pieces, len(clips)))]
    return [select(batch, [row for row, clip in enumerate(batch.clips) if clip in part]) for part in parts]


def _longest(batch: Batch) -> tuple[int, int]:
    """The row with the most tokens, visual ones included, and their number."""
    lengths = [len(prompt.ids) + len(target) for prompt, target in zip(batch.prompts, batch.targets, strict=True)]
    return int(np.argmax(lengths)), max(lengths)


class MicroBatchSplit:
    """The number of pieces that each batch is cut into; it doubles whenever one does not fit.

    Args:
        video: function that names the video of an example, for messages.
        alone: whether this process may compute a batch in more passes than others do.
    """

    def __init__(self, video: Callable[[int], str], *, alone: bool) -> None:
        self._video, self.alone = video, alone
        self.number = 1

    def halve(self, batch: Batch, setting: str) -> None:
        """Take smaller pieces from now on.

        Args:
            batch: batch that did not fit.
            setting: key of its size, with the value that would have been right from the start.

        Raises:
            ModelError: The batch cannot be cut further; names the longest clip and what to set.
        """
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        clips = len(set(batch.clips))
        row, tokens = _longest(batch)
        what = (f"{min(self.number, clips)} pieces of " if self.number > 1 else "") + f"{clips} clips"
        problem = (
            f"out of memory with {what}; the longest row is about {self._video(batch.indices[row])}: {tokens} tokens"
        )
        if self.number >= clips:
            raise ModelError(f"{problem}. A single clip does not fit: {_LESS}.")
        if not self.alone:
            raise ModelError(
                f"{problem}. Processes that compute together cannot take smaller pieces on their own: set "
                f"{setting}, or {_LESS}."
            )
        self.number = min(2 * self.number, clips)
        warn(
            f"{problem}. From here on it is computed in {self.number} pieces, which changes no result; "
            f"{setting} does so from the start.",
        )

    def each(self, work: Callable[[Batch], None], batch: Batch, setting: str) -> None:
        """Do some work without gradients on all of a batch, once for each row.

        Args:
            work: function that keeps its result only when it returns; nothing of a piece that failed.
            batch: batch to work on.
            setting: see `halve`.
        """
        left = cut(batch, self.number)
        while left:
            try:
                work(left[0])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
            else:
                fits = True
            # after the handler: the error holds on to the tensors of the frames it passed
            if fits:
                left.pop(0)
            else:
                rest = _joined(left)
                self.halve(batch, setting)
                left = cut(rest, max(2, self.number))


def _joined(parts: Sequence[Batch]) -> Batch:
    """MicroBatchSplit as one batch again."""
    return replace(
        parts[0],
        indices=tuple(i for part in parts for i in part.indices),
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        targets=tuple(target for part in parts for target in part.targets),
        weights=torch.cat([part.weights for part in parts]),
        values=torch.cat([part.values for part in parts]),
        clips=tuple(clip for part in parts for clip in part.clips),
    )


class SplitStep:
    """The gradient of an optimiser step whose micro-batches may have to be computed in pieces, on one device.

    A micro-batch that does not fit in the forward pass is computed in pieces. Where the backward pass fails, the
    gradients of some parameters were added and those of others not, so the step begins again. The sum over pieces is
    the gradient of the whole (`Objective.loss` is a share of the step's); with dropout, pieces draw their own masks.

    Args:
        pieces: number of pieces.
        share: function that gives the objective's share of a batch.
        seed: function that seeds the micro-batch of an index.
        clear: function that clears all gradients.
    """

    def __init__(
        self,
        pieces: MicroBatchSplit,
        share: Callable[[Batch], Tensor],
        seed: Callable[[int], None],
        clear: Callable[[], None],
    ) -> None:
        self.pieces, self._share, self._seed, self._clear = pieces, share, seed, clear
        self._step: list[tuple[Batch, int]] = []
        self._whole: Tensor | None = None

    def forward(self, batch: Batch, index: int, accumulate: int) -> Tensor | None:
        """The share of a micro-batch, apart from its graph; None where it is computed in the backward pass.

        Args:
            batch: the micro-batch.
            index: number of the micro-batch in the epoch.
            accumulate: micro-batches of a step.
        """
        if index % accumulate == 0:
            self._step.clear()
        self._step.append((batch, index))
        self._whole = None
        if self.pieces.number > 1:
            return None
        if not self.pieces.alone:
            shares: list[Tensor] = []
            if not self._fits(lambda: shares.append(self._share(batch))):
                self.pieces.halve(batch, _training_sizes(batch, accumulate))  # which refuses
            return shares[0]
        # held here alone, so that it can be let go of
        if not self._fits(lambda: setattr(self, "_whole", self._share(batch))) or self._whole is None:
            self.pieces.halve(batch, _training_sizes(batch, accumulate))
            return None
        return self._whole.detach().requires_grad_()

    def backward(self, loss: Tensor, factor: float, accumulate: int) -> Tensor | None:
        """Add the gradient of the last micro-batch.

        Args:
            loss: loss that the trainer made of the share from `forward`.
            factor: total factor that the trainer multiplied the share by.
            accumulate: micro-batches of a step.

        Returns:
            The share of a micro-batch that was computed in pieces, else None.
        """
        if not self.pieces.alone:
            if not self._fits(loss.backward):
                self._begin_again(accumulate)
            return None
        todo = self._step[-1:]
        if self._whole is not None:
            whole, self._whole = [self._whole], None
            if self._fits(lambda: (whole.pop() * factor).backward()):
                return None
            todo = self._begin_again(accumulate)
        while True:
            shares: list[Tensor] = []
            if self._fits(lambda todo=todo, shares=shares: self._in_pieces(todo, factor, shares)):  # type: ignore[misc]
                return shares[-1]
            todo = self._begin_again(accumulate)

    def _in_pieces(self, batches: Sequence[tuple[Batch, int]], factor: float, shares: list[Tensor]) -> None:
        for batch, index in batches:
            self._seed(index)
            total = torch.zeros((), device=batch.weights.device)
            for part in cut(batch, self.pieces.number):
                share = self._share(part)
                (share * factor).backward()
                total += share.detach()
            shares.append(total)

    def _fits(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _begin_again(self, accumulate: int) -> list[tuple[Batch, int]]:
        batch = self._step[-1][0]
        self.pieces.halve(batch, _training_sizes(batch, accumulate))
        self._clear()
        return list(self._step)


def _training_sizes(batch: Batch, accumulate: int) -> str:
    clips = len(set(batch.clips))
    return f"data.batch_size {max(1, clips // 2)} with trainer.accumulate_grad_batches {2 * accumulate}"
