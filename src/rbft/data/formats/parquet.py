"""Rows of a Parquet table, where the package pyarrow is there to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rbft.errors import ConfigError, DataError


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a .parquet file, each as values by column; what is missing is None.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: It is no Parquet file, is damaged, or a column name stands twice.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"{path}: tables as .parquet need the package pyarrow: pip install 'rbft[parquet]', or save it as .csv."
        ) from error
    try:
        # the bytes, not the path: a path might be taken for a folder of files, or for another file system
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(path.read_bytes()))
        names = table.column_names
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]}).") from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: the column {twice[0]!r} stands twice; rename one of them.")
    return rows
