"""What goes wrong in loader processes comes from them as values; torch would make text of it, or wait for ever."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from rbft.data.sampler import Draw
from rbft.errors import RBFTError, StorageError
from rbft.vlm.batch import Batch, collate

# where Linux keeps what processes share, and the least that it takes for a tensor
_SHARED, _PAGE = Path("/dev/shm"), 4096

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
    batch = collate(good)
    return _no_room_to_share(batch) or batch


def _no_room_to_share(batch: Any) -> RBFTError | None:
    """Why a loader's process cannot hand on a batch; None where it can, or none does.

    Its thread that hands on would die of it alone, and the run would wait for ever.
    """
    if get_worker_info() is None or not _SHARED.is_dir():
        return None
    storages = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(batch)}
    need = sum(-(-size // _PAGE) * _PAGE for size in storages.values())
    free = shutil.disk_usage(_SHARED).free
    if need <= free:
        return None
    return StorageError(
        f"{_SHARED}: a batch of {need:,} bytes does not fit into the {free:,} bytes that are free there. Make it "
        "larger, as by `docker run --shm-size 8g`, or set data.num_workers to 0. The same command continues."
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested values."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


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
