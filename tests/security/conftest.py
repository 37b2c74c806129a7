"""What attacks leave behind if they succeed: a marker that no test may find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A path at which nothing may be made, not even behind the test's back."""
    path = tmp_path / "attack-succeeded"
    yield path
    assert not path.exists(), "the attack ran"


@pytest.fixture
def bomb(marker: Path) -> Bomb:
    """To be pickled into files."""
    return Bomb(marker)
