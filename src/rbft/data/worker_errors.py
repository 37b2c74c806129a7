"""Errors of single rows cross from loader processes as values; torch would make text with a traceback of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.utils.data import Dataset

from rbft.data.sampler import Draw
from rbft.errors import RBFTError
from rbft.vlm.batch import Batch, collate

Row = TypeVar("Row")
Rows = TypeVar("Rows")


class Carried(Dataset[Any]):
    """A data set whose refusals are rows.

    Args:
        rows: Draws rows, and raises an error of this package where one cannot be had.
    """

    def __init__(self, rows: Dataset[Any]) -> None:
        self.rows = rows

    def __getitem__(self, draw: Draw) -> Any:
        try:
            return self.rows[draw]
        except RBFTError as error:
            return error


def put_together(rows: Sequence[Row | RBFTError], collate: Callable[[Sequence[Row]], Rows]) -> Rows | RBFTError:
    """Put rows together, or hand on the first refusal among them."""
    good: list[Row] = []
    for row in rows:
        if isinstance(row, RBFTError):
            return row
        good.append(row)
    return collate(good)


def collate_carried(rows: Sequence[Any]) -> Batch | RBFTError:
    """Put rows that a model is asked about together, or hand on the first refusal among them."""
    return put_together(rows, collate)


def unpack(batch: Rows | RBFTError) -> Rows:
    """The batch.

    Raises:
        RBFTError: The refusal that came instead of it, as it was raised.
    """
    if isinstance(batch, RBFTError):
        raise batch
    return batch
