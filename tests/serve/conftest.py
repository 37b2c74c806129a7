"""One server for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.browser import browser as browser
from tests.support.runs import Run
from tests.support.server import Server, serving


@pytest.fixture(scope="session")
def server(finished: Run) -> Iterator[Server]:
    """A server of the finished run, for all tests that leave it as it is."""
    with serving(finished.folder, "--max-mb", "1") as started:
        yield started
