"""A tiny model of each family, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.families import FAMILIES
from tests.support.models import Loaded, load


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Path:
    return family_folder(request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder)
