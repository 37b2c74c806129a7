"""The loop of a sweep over stand-in runs: each is completed once whatever is killed, and failures cost themselves."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import REPOSITORY
from tests.support.sweeps import drive, write_sweep

from rbft.errors import StageError
from rbft.runs.lock import RunLock
from rbft.sweep.grid import read_sweep
from rbft.sweep.progress import Progress, expected_seconds
from rbft.sweep.state import Record


def start(path: Path, *flags: str) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tests.support.sweeps", str(path), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def journal(folder: Path, what: str) -> dict[str, int]:
    """How often each run was started or finished."""
    found = sorted((folder / "runs" / "journal").glob(f"*.{what}"))
    return {path.stem: len(path.read_text().splitlines()) for path in found}


def names(count: int) -> list[str]:
    return sorted(f"zero_shot-seed{seed}" for seed in range(count))


def record(folder: Path, seed: int) -> dict[str, Any]:
    return json.loads((folder / "runs" / "sweeps" / "grid" / "runs" / f"zero_shot-seed{seed}.json").read_text())


def wait_until(true: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are of cores here, and there are always enough of them: stand-ins hardly compute."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)


def grid(count: int, **launch: Any) -> dict[str, Any]:
    return {"grid": {"seed_everything": list(range(count))}, "launch": {"slots": 2, **launch}}


def test_each_run_once_and_never_again(tmp_path, capsys):
    path = write_sweep(tmp_path, **grid(4))
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "started") == journal(tmp_path, "finished") == dict.fromkeys(names(4), 1)
    said = capsys.readouterr().out
    assert "[4/4] zero_shot-seed" in said and said.count(": started") == said.count(": finished") == 4
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "started") == dict.fromkeys(names(4), 1)


@pytest.mark.parametrize("per_process", [1, 4])
def test_no_run_is_begun_behind_the_limit_of_time(tmp_path, per_process):
    path = write_sweep(tmp_path, {"seconds": 1.0}, **grid(8, per_process=per_process))
    assert drive(str(path), [], until=time.time() - 1) == 0
    assert journal(tmp_path, "started") == {}
    assert drive(str(path), [], until=time.time() + 4) == 0
    begun = len(journal(tmp_path, "started"))
    assert 1 <= begun < 8 and len(journal(tmp_path, "finished")) == begun, "what is begun is finished"
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "started") == dict.fromkeys(names(8), 1)


def test_a_run_that_would_end_behind_the_limit_is_not_begun(tmp_path):
    path = write_sweep(tmp_path, {"seconds": 0.2}, **grid(2, slots=1))
    plan = read_sweep(str(path), ["--method", "zero_shot"], {})
    first, second = plan.runs
    known = [
        Progress(first, "finished", Record(first.id, first.settings, "finished", 1, seconds=90.0)),
        Progress(second),
    ]
    assert expected_seconds(second, known) == 90.0
    assert expected_seconds(second, known[1:]) == 0.0, "nothing is known yet"


def test_runs_of_a_worker_that_has_imported_before(tmp_path):
    path = write_sweep(tmp_path, {"at_seed": {2: "killed once"}}, **grid(6, per_process=3))
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "finished") == dict.fromkeys(names(6), 1)
    assert journal(tmp_path, "started") == dict.fromkeys(names(6), 1) | {"zero_shot-seed2": 2}


@pytest.mark.parametrize("per_process", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_failure_costs_its_own_run_and_is_tried_again_if_it_may_pass(per_process, tmp_path, capsys):
    behaviour = {1: "killed once", 2: "raises", 3: "configuration", 4: "explained"}
    path = write_sweep(tmp_path, {"seconds": 0.05, "at_seed": behaviour}, **grid(6, per_process=per_process))
    assert drive(str(path), []) == 0
    tries = {f"zero_shot-seed{seed}": count for seed, count in enumerate((1, 2, 3, 1, 1, 1))}
    assert journal(tmp_path, "started") == tries
    assert sorted(journal(tmp_path, "finished")) == [f"zero_shot-seed{seed}" for seed in (0, 1, 5)]
    assert [record(tmp_path, seed)["failure"] for seed in (2, 3, 4)] == ["crashed", "configuration", "explained"]
    assert record(tmp_path, 2)["reason"] == "RuntimeError: CUDA error: out of memory"
    assert record(tmp_path, 3)["reason"] == "data.shots: is wrong; set it to 1."
    said = capsys.readouterr().out
    assert "zero_shot-seed1: failed: ended by signal 9, Killed; out of memory?; it will be tried again" in said
    assert "zero_shot-seed4: failed: the loss is not finite.\n" in said
    log = (tmp_path / "runs" / "sweeps" / "grid" / "logs" / "zero_shot-seed2.log").read_text()
    assert log.count("--- try ") == log.count("Traceback") == 3


def test_what_changed_is_run_again(tmp_path):
    path = write_sweep(tmp_path, **grid(3))
    assert drive(str(path), []) == 0
    folder = tmp_path / "runs" / "tiny" / "zero_shot"
    (folder / "seed0" / "metrics.json").write_text("{}")
    (folder / "seed1" / "metrics.json").unlink()
    assert drive(str(path), []) == 0
    assert list(journal(tmp_path, "started").values()) == [2, 2, 1]
    assert drive(str(path), ["--data.shots=3"]) == 0
    assert list(journal(tmp_path, "started").values()) == [3, 3, 2]


def test_the_driver_is_killed_again_and_again_and_each_run_is_completed_once(tmp_path):
    path = write_sweep(tmp_path, {"seconds": 0.4}, **grid(12))
    rng = random.Random(0)
    plan = tmp_path / "runs" / "sweeps" / "grid" / "plan.json"
    for number in range(10):
        before = plan.stat().st_mtime_ns if plan.exists() else 0
        begun = len(journal(tmp_path, "started"))
        process = start(path)
        wait_until(lambda before=before: plan.exists() and plan.stat().st_mtime_ns > before)
        if number % 2:  # every other one comes to start a run, if any is left; the rest die anywhere
            wait_until(lambda begun=begun: len(journal(tmp_path, "started")) > min(begun, 11))
        time.sleep(rng.uniform(0.0, 0.5))
        process.kill()
        process.wait()
    process = start(path)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert journal(tmp_path, "finished") == dict.fromkeys(names(12), 1)
    assert journal(tmp_path, "started") == dict.fromkeys(names(12), 1), "nothing was interrupted: only drivers died"
    assert [record(tmp_path, seed)["status"] for seed in range(12)] == ["finished"] * 12


@pytest.mark.parametrize("per_process", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_everything_is_killed_at_once(per_process, tmp_path):
    # long enough that no run is over before it is killed
    path = write_sweep(tmp_path, {"seconds": 4.0}, **grid(3, per_process=per_process))
    process = start(path)
    wait_until(lambda: len(journal(tmp_path, "started")) >= 2)
    process.kill()
    process.wait()
    plan = read_sweep(str(path), [], {})
    holders = [holder for run in plan.runs if (holder := RunLock(run.folder).holder()) is not None]
    assert len(holders) >= 2
    for holder in holders:
        for pid in {holder.worker, holder.pid}:
            # a process that was started by another may have died with it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(RunLock(run.folder).is_held() for run in plan.runs))
    assert journal(tmp_path, "finished") == {}, "a run was over before it was killed"
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "finished") == dict.fromkeys(names(3), 1)


def test_a_run_without_its_worker_is_waited_for_and_not_started_beside(tmp_path, capsys):
    path = write_sweep(tmp_path, {"seconds": 3.0}, **grid(1))
    process = start(path)
    (run,) = read_sweep(str(path), [], {}).runs
    wait_until(
        lambda: (
            RunLock(run.folder).is_held() and RunLock(run.folder).holder() is not None and journal(tmp_path, "started")
        )
    )
    process.kill()
    process.wait()
    holder = RunLock(run.folder).holder()
    assert holder is not None and holder.worker != holder.pid
    os.kill(holder.worker, signal.SIGKILL)
    assert drive(str(path), []) == 0
    assert f"is being run already (process {holder.pid}" in capsys.readouterr().out
    # nobody was left to write down how it ended, so it was asked again once it had: `rbft fit` finds all done then
    assert journal(tmp_path, "finished") == {"zero_shot-seed0": 2}


@pytest.mark.parametrize("per_process", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signals_are_passed_on_and_the_same_command_continues(number, per_process, tmp_path):
    path = write_sweep(tmp_path, {"seconds": 4.0}, **grid(3, per_process=per_process))
    process = start(path)
    wait_until(lambda: len(journal(tmp_path, "started")) >= 2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == number, said
    assert said.count("stopped, and saved") == 2
    assert journal(tmp_path, "finished") == {}
    codes = [record(tmp_path, int(name[-1]))["code"] for name in journal(tmp_path, "started")]
    assert codes == [128 + number] * 2
    assert drive(str(path), []) == 0
    assert journal(tmp_path, "finished") == dict.fromkeys(names(3), 1)


def test_runs_of_a_killed_driver_are_stopped_with_the_next(tmp_path):
    path = write_sweep(tmp_path, {"seconds": 20.0}, **grid(2))
    first = start(path)
    wait_until(lambda: len(journal(tmp_path, "started")) == 2)
    first.kill()
    first.wait()
    second = start(path)
    assert second.stdout is not None
    assert "is being run already" in second.stdout.readline()
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=15) == signal.SIGTERM
    assert not any(RunLock(run.folder).is_held() for run in read_sweep(str(path), [], {}).runs)
    assert [record(tmp_path, seed)["status"] for seed in range(2)] == ["interrupted"] * 2


def test_one_driver_at_a_time(tmp_path):
    path = write_sweep(tmp_path, {"seconds": 2.0}, **grid(1))
    process = start(path)
    wait_until(lambda: journal(tmp_path, "started"))
    with pytest.raises(StageError, match="another `rbft sweep` is at"):
        drive(str(path), [])
    assert process.wait(timeout=20) == 0
    assert journal(tmp_path, "finished") == {"zero_shot-seed0": 1}


def test_a_worker_that_cannot_start_ends_the_sweep(tmp_path, capsys, monkeypatch):
    path = write_sweep(tmp_path, **grid(3))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    assert drive(str(path), []) == 0
    said = capsys.readouterr().out
    assert said.count("failed: its worker ended: exit code 1, see") == 9
    assert "tried again" in said
