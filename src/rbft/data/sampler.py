"""Which clips each rank computes at each step: a function of (seed, epoch, step) alone, so any step can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One clip to compute, with all that is asked about it.

    Args:
        clip: Its position in the data set.
        seed: seed of whatever is random about it (frames, augmentation).
        weight: 1, or 0 for a clip that only fills up a rank's batch and counts nowhere.
        normalizer: Supervised tokens of the whole optimiser step, whatever they weigh.
    """

    clip: int
    seed: tuple[int, ...]
    weight: float
    normalizer: float


def limited_batches(batches: int, limit: float | None) -> int:
    """Micro-batches of an epoch that `trainer.limit_train_batches` leaves.

    Args:
        batches: micro-batches of a whole epoch.
        limit: how many, or a fraction of them; None for all.
    """
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


class TrainSampler(Sampler[list[Draw]]):
    """Micro-batches of one rank for training.

    Each clip stands once in each epoch. An optimiser step takes `batch_size x world_size x accumulate` clips of a
    permutation drawn from (seed, epoch). The last step of an epoch may have fewer: its clips are divided over ranks and
    micro-batches, and clips of weight 0 keep their number equal on every rank. Within a step, clips with answers of
    like length come into one micro-batch, which saves padding and changes no gradient.

    Args:
        tokens: Supervised tokens of each clip, whatever they weigh: a sum of weights would cancel them in small steps.
        lengths: Tokens of each clip's answers.
        batch_size: Clips of a micro-batch.
        accumulate: Micro-batches of an optimiser step on one rank.
        rank: rank of this process.
        world_size: Number of processes.
        seed: seed of the order.
    """

    def __init__(
        self,
        tokens: Sequence[float],
        lengths: Sequence[int],
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
        seed: int,
    ) -> None:
        self.tokens, self.lengths = np.asarray(tokens, dtype=np.float64), np.asarray(lengths)
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.epoch = 0
        self._skip: dict[int, int] = {}

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(len(self.tokens) / (self.batch_size * self.world_size * self.accumulate))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Start `epoch` after the micro-batches that were computed before the run was interrupted."""
        self._skip = {epoch: batches}

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.tokens))
        size = self.batch_size * self.world_size * self.accumulate
        position, skip = 0, self._skip.pop(self.epoch, 0)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            normalizer = float(self.tokens[chosen].sum())
            chosen = chosen[np.argsort(self.lengths[chosen], kind="stable")]
            parts = np.array_split(chosen, self.world_size * self.accumulate)
            width = max(len(part) for part in parts)
            for micro in range(self.accumulate):
                part = parts[micro * self.world_size + self.rank]
                rows = [Draw(int(i), (self.seed, self.epoch, int(i)), 1.0, normalizer) for i in part]
                rows += [Draw(int(chosen[0]), (self.seed, self.epoch, 0), 0.0, normalizer)] * (width - len(part))
                if position >= skip:
                    yield rows
                position += 1


class EvaluationSampler(Sampler[list[Draw]]):
    """Batches of one rank for scoring or writing: each clip once over all ranks, in order.

    Every rank gets the same number of batches of the same sizes, filled up with clips of weight 0, so that no rank
    waits for a collective that another never reaches.

    Args:
        size: Number of clips.
        batch_size: Clips of a batch.
        rank: rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, size: int, batch_size: int, rank: int, world_size: int) -> None:
        self.size, self.batch_size, self.rank, self.world_size = size, batch_size, rank, world_size

    def __len__(self) -> int:
        return math.ceil(self.size / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        for number in range(len(self)):
            start = (number * self.world_size + self.rank) * self.batch_size
            rows = [Draw(i, (0, 0, i), 1.0, 1.0) for i in range(start, min(start + self.batch_size, self.size))]
            first = number * self.world_size * self.batch_size  # where the first rank starts
            yield rows + [Draw(0, (0, 0, 0), 0.0, 1.0)] * (min(self.batch_size, self.size - first) - len(rows))
