"""Fixtures of whole runs; a test module takes them by `pytest_plugins = ["tests.support.run_fixtures"]`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import Run, run_experiment, write_clips, write_experiment


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen clips of two classes."""
    return write_clips(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    """One undisturbed run of all four stages; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"))
    return run_experiment(config, folder / "runs")


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, modification times included, to do anything with."""
    config = Path(shutil.copy2(finished.config, tmp_path))
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    return Run(config, root, root / finished.folder.relative_to(finished.root), finished.result)
