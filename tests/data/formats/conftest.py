"""Fabricated data sets: empty files in the true layout, because formats read names and lists, never videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write files below the data root: empty ones by path, ones with content by keyword or mapping; gives the root."""

    def write(*paths: str, **contents: str) -> Path:
        for path, content in {**dict.fromkeys(paths, ""), **contents}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode("utf-8", "surrogateescape"))
        return tmp_path

    return write
