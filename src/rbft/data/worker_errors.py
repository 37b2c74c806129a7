"""Errors of single rows cross from loader processes as values; torch would make text with a traceback of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from rbft.data.sampler import Draw
from rbft.errors import RBFTError
from rbft.vlm.batch import Batch, Item, collate


class Carried(Dataset[Any]):
    """A data set whose refusals are rows.

    Args:
        rows: Draws rows, and raises an error of this package where one cannot be had.
    """

    def __init__(self, rows: Dataset[list[Item]]) -> None:
        self.rows = rows

    def __getitem__(self, draw: Draw) -> list[Item] | RBFTError:
        try:
            return self.rows[draw]
        except RBFTError as error:
            return error


def collate_carried(rows: Sequence[list[Item] | RBFTError]) -> Batch | RBFTError:
    """Put rows together, or hand on the first refusal among them."""
    items: list[list[Item]] = []
    for row in rows:
        if isinstance(row, RBFTError):
            return row
        items.append(row)
    return collate(items)


def unpack(batch: Batch | RBFTError) -> Batch:
    """The batch.

    Raises:
        RBFTError: The refusal that came instead of it, as it was raised.
    """
    if isinstance(batch, RBFTError):
        raise batch
    return batch
