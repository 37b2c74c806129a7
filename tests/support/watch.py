"""Watching what the clip cache does: which videos are opened, what a folder holds, that nothing is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest


def count_opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening of a video from here on."""
    opened: list[str] = []
    original = av.open

    def counting(file, *args, **settings):
        opened.append(file)
        return original(file, *args, **settings)

    monkeypatch.setattr(av, "open", counting)
    return opened


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
