"""Slots of this machine: disjoint GPUs or cores for each run, and no more than there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import REPOSITORY
from tests.support.sweeps import drive, write_sweep

from rbft.errors import ConfigError
from rbft.sweep import launchers
from rbft.sweep.launchers import LocalLauncher, visible_cores, visible_gpus
from rbft.sweep.options import LaunchOptions


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(gpus: str, cores: int) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        monkeypatch.setattr(launchers, "visible_cores", lambda: list(range(cores)))

    return make


@pytest.mark.parametrize(
    ("gpus", "cores", "options", "runs", "words"),
    [
        ("", 8, {}, 9, "1 at once, 8 core(s) each"),
        ("", 8, {"slots": 3}, 9, "3 at once, 2 core(s) each"),
        ("", 8, {"slots": 4}, 2, "2 at once, 4 core(s) each"),
        ("", 8, {"slots": 2, "cores": 1}, 9, "2 at once, 1 core(s) each"),
        ("0,1,5,7", 8, {}, 9, "4 at once, 1 GPU(s) each"),
        ("0,1,5,7", 8, {"gpus": 2, "cores": 4}, 9, "2 at once, 2 GPU(s) and 4 core(s) each"),
        ("0,1", 8, {"gpus": 0, "slots": 8}, 9, "8 at once, 1 core(s) each"),
    ],
)
def test_slots(gpus, cores, options, runs, words, machine, tmp_path):
    machine(gpus, cores)
    assert LocalLauncher(LaunchOptions(**options), tmp_path, runs).describe() == f"this machine, {words}"


@pytest.mark.parametrize(
    ("gpus", "options", "message"),
    [
        ("", {"gpus": 1}, r"launch\.gpus: 1 a run, and this machine shows 0"),
        ("0,1,2", {"gpus": 2, "slots": 2}, r"2 runs of 2 GPU\(s\) need 4, and this machine shows 3"),
        ("", {"slots": 2, "cores": 3}, r"2 runs of 3 core\(s\) need 6, and this machine has 4"),
        ("", {"slots": 5}, r"5 runs of 1 core\(s\) need 5, and this machine has 4"),
    ],
)
def test_more_than_there_is(gpus, options, message, machine, tmp_path):
    machine(gpus, 4)
    with pytest.raises(ConfigError, match=message):
        LocalLauncher(LaunchOptions(**options), tmp_path, 9)


def test_gpus_are_those_that_may_be_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f1c")
    assert visible_gpus() == ["3", "GPU-8f1c"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() == []


def started(folder: Path) -> set[tuple[str, ...]]:
    """Threads, cores and GPUs that each run was given."""
    paths = (folder / "runs" / "journal").glob("*.started")
    return {tuple(line.split()[1:]) for path in paths for line in path.read_text().splitlines()}


@pytest.mark.skipif(len(visible_cores()) < 2, reason="two cores")
def test_runs_get_what_their_slot_has(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    grid = {"seed_everything": [0, 1, 2]}
    assert drive(str(write_sweep(tmp_path / "cores", grid=grid, launch={"slots": 2, "cores": 1})), []) == 0
    assert started(tmp_path / "cores") == {("1", "1")}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert drive(str(write_sweep(tmp_path / "gpus", {"seconds": 0.5}, grid=grid)), []) == 0
    assert {row[-1] for row in started(tmp_path / "gpus")} == {"4", "6"}
