"""Videos for the tests of the clip cache, and a count of how often they are opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.clip_caches import three_videos
from tests.support.watch import count_opens


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def opens(videos: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening of a video, once the videos are written."""
    return count_opens(monkeypatch)
