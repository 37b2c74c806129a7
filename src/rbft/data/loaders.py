"""Loaders whose processes decode with one thread each and hand on what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rbft.data.worker_errors import Carried

Collate = Callable[[Any], Any]


def make_loader(
    rows: Dataset[Any],
    sampler: Sampler[Any],
    collate: Collate,
    workers: int,
    *,
    pin: bool = False,
    persistent: bool = False,
) -> DataLoader[Any]:
    """A loader of whole batches.

    Args:
        rows: rows by `rbft.data.sampler.Draw`.
        sampler: sampler of the batches.
        collate: function that puts rows together; of loader processes it also gets refusals.
        workers: number of processes that decode.
        pin: whether tensors are put where a GPU copies them from.
        persistent: whether the processes outlive an epoch.
    """
    return DataLoader(
        Carried(rows) if workers else rows,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_one_thread,
        pin_memory=pin,
        persistent_workers=workers > 0 and persistent,
    )


def _one_thread(_: int) -> None:
    """A worker decodes with one thread; more only compete with the other workers."""
    torch.set_num_threads(1)
