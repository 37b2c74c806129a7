"""A folder of labelled clips as the benchmarks take them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.support.runs import LEFT, RIGHT, write_clips


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three clips of each of two labels, and a table of them."""
    root = write_clips(tmp_path / "media", {"train": (3, 3)})
    with (root / "labels.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "label"])
        writer.writerows([f"train/{label}/{number}.mp4", label] for label in (LEFT, RIGHT) for number in range(3))
    return root
