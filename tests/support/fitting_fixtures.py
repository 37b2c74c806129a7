"""The stage of `tests.support.fitting` as a fixture; a test module takes it by `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fitting import Stage
from tests.support.runs import write_clips

from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import ClassFolders
from rbft.vlm.processing import ClipProcessor


@pytest.fixture(scope="session")
def fitting_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("module") / "clips")


@pytest.fixture(scope="session")
def fitting_model(family_folder: Callable[[str], Path]) -> tuple[str, ClipProcessor]:
    folder = str(family_folder("qwen2_5_vl"))
    return folder, ClipProcessor(folder)


@pytest.fixture
def stage(fitting_clips: Path, fitting_model: tuple[str, ClipProcessor]) -> Stage:
    data = VideoDataModule(str(fitting_clips), ClassFolders(), num_frames=4, batch_size=2, eval_batch_size=2)
    made = Stage(*fitting_model, data)
    made.connect(2)
    return made
