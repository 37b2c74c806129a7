"""Slurm by submitit and Ray, each for real on this machine where it is installed, and by name where it is not."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import REPOSITORY
from tests.support.sweeps import drive, write_sweep

from rbft.errors import ConfigError
from rbft.sweep import clusters
from rbft.sweep.launchers import make_launcher
from rbft.sweep.options import LaunchOptions, SlurmOptions

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit: pip install 'rbft[slurm]'"
)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray: pip install 'rbft[ray]'")
REHEARSAL = {"launcher": "slurm", "slots": 2, "slurm": {"cluster": "local", "minutes": 2}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)


def finished(folder: Path) -> dict[str, int]:
    found = sorted((folder / "runs" / "journal").glob("*.finished"))
    return {path.stem: len(path.read_text().splitlines()) for path in found}


def grid(count: int, launch: dict[str, Any]) -> dict[str, Any]:
    return {"grid": {"seed_everything": list(range(count))}, "launch": launch}


def once(count: int) -> dict[str, int]:
    return {f"zero_shot-seed{seed}": 1 for seed in range(count)}


@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_named(name, module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs the package {module}, .* pip install 'rbft\[{name}\]'"):
        make_launcher(LaunchOptions(launcher=name), tmp_path, 1)


@needs_submitit
def test_a_machine_without_slurm_is_not_used_in_silence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no sbatch on this machine"):
        make_launcher(LaunchOptions(launcher="slurm"), tmp_path, 1)


@needs_submitit
def test_jobs_ask_for_what_was_said(tmp_path, monkeypatch):
    import submitit

    asked: dict[str, Any] = {}

    class Executor:
        def __init__(self, folder: Path, cluster: str) -> None:
            asked.update(folder=folder, cluster=cluster)

        def update_parameters(self, **settings: Any) -> None:
            asked.update(settings)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(clusters.shutil, "which", lambda _: "/usr/bin/sbatch")
    slurm = SlurmOptions(partition="gpu", minutes=90, memory_gb=64.0, setup=("module load cuda",))
    launcher = make_launcher(LaunchOptions(launcher="slurm", gpus=2, cores=8, slurm=slurm), tmp_path / "shots", 31)
    assert launcher.slots == 31
    assert asked == {
        "folder": tmp_path / "shots" / "slurm",
        "cluster": "slurm",
        "name": "rbft-shots",
        "timeout_min": 90,
        "nodes": 1,
        "tasks_per_node": 1,
        "gpus_per_node": 2,
        "cpus_per_task": 8,
        "mem_gb": 64.0,
        "slurm_partition": "gpu",
        "slurm_setup": ["export PYTHONSAFEPATH=1", "module load cuda"],
        "slurm_signal_delay_s": 120,
    }


@needs_submitit
@pytest.mark.parametrize("per_process", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_submitit_jobs(per_process, tmp_path):
    path = write_sweep(tmp_path, {"at_seed": {1: "killed once"}}, **grid(4, {**REHEARSAL, "per_process": per_process}))
    assert drive(str(path), []) == 0
    assert finished(tmp_path) == once(4)


@needs_submitit
@pytest.mark.slow
def test_an_interrupted_job_saves_is_queued_again_and_goes_on(tmp_path):
    path = write_sweep(tmp_path, {"seconds": 3.0}, **grid(1, {**REHEARSAL, "slots": 1}))
    plan = [sys.executable, "-m", "tests.support.sweeps", str(path)]
    driver = subprocess.Popen(plan, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    started = tmp_path / "runs" / "journal" / "zero_shot-seed0.started"
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (job,) = {path.name.split("_")[0] for path in (tmp_path / "runs" / "sweeps" / "grid" / "slurm").glob("*_log.out")}
    # what submitit's controller passes on when a job's time is nearly over
    tasks = Path(f"/proc/{job}/task/{job}/children").read_text().split()
    os.kill(int(tasks[0]), signal.SIGUSR2)
    assert driver.wait(timeout=60) == 0
    assert finished(tmp_path) == once(1)
    assert len(started.read_text().splitlines()) == 2
    log = (tmp_path / "runs" / "sweeps" / "grid" / "logs" / "zero_shot-seed0.log").read_text()
    assert "stopped, and everything so far is saved" in log


@needs_ray
@pytest.mark.slow
def test_ray_tasks(tmp_path):
    import ray

    path = write_sweep(
        tmp_path, {"at_seed": {1: "killed once", 2: "configuration"}}, **grid(5, {"launcher": "ray", "slots": 2})
    )
    try:
        assert drive(str(path), []) == 0
    finally:
        ray.shutdown()
    assert finished(tmp_path) == {name: 1 for name in once(5) if name != "zero_shot-seed2"}


@needs_ray
@pytest.mark.parametrize("error", ["ConnectionError", "RpcError"])
def test_an_address_without_a_cluster_is_named(error, monkeypatch, tmp_path):
    import ray

    def init(**_: Any) -> None:
        raise {"ConnectionError": ConnectionError, "RpcError": ray.exceptions.RpcError}[error]("nobody answers")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"launch\.ray_address: 127\.0\.0\.1:1: nobody answers"):
        make_launcher(LaunchOptions(launcher="ray", ray_address="127.0.0.1:1"), tmp_path, 1)
