"""Processes of a run end together, and the message names the one that ended first."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rbft.errors import ConfigError, StageError
from rbft.training.rank_watch import RankWatch


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def launched(*processes: subprocess.Popen[bytes]) -> SimpleNamespace:
    """A trainer that started these processes."""
    launcher = SimpleNamespace(procs=list(processes), num_processes=len(processes) + 1)
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL, as the system does when memory runs out"),
        ("import sys; sys.exit(3)", "ended with code 3; what it said stands above"),
    ],
)
def test_a_process_that_waits_for_ever_is_ended_with_the_name_of_the_one_that_is_gone(code, how, tmp_path):
    """In a process of its own, which must end although its main thread never looks up."""

    def first_process() -> None:
        sys.stderr = (tmp_path / "said").open("w", buffering=1)
        other, gone = started("import time; time.sleep(100)"), started(code)
        (tmp_path / "pids").write_text(f"{other.pid} {gone.pid}")
        with RankWatch(0.05) as watch, watch.named():
            watch.look_after(launched(other, gone))
            time.sleep(100)

    process = multiprocessing.get_context("fork").Process(target=first_process)
    process.start()
    process.join(30)
    assert process.exitcode == 1
    other, gone = map(int, (tmp_path / "pids").read_text().split())
    assert f"rbft: process 2 of this run (pid {gone}) {how}. What was saved is whole" in (tmp_path / "said").read_text()
    wait_for(lambda: not Path(f"/proc/{other}").exists())


def test_an_error_that_comes_of_one_being_gone_is_told_as_that():
    gone = started("import os; os.kill(os.getpid(), 15)")
    with (
        pytest.raises(
            StageError, match=rf"^process 1 of this run \(pid {gone.pid}\) was killed by SIGTERM\. "
        ) as error,
        RankWatch(0.05) as watch,
        watch.named(),
    ):
        trainer = launched(gone)
        watch.look_after(trainer)
        wait_for(lambda: trainer.strategy.launcher.procs == [])
        raise RuntimeError("Connection closed by peer")
    assert isinstance(error.value.__cause__, RuntimeError)


def test_other_errors_stay_what_they_are():
    well = started("import time; time.sleep(100)")
    try:
        for kind in (ConfigError, KeyboardInterrupt):
            with pytest.raises(kind), RankWatch(0.05) as watch, watch.named():
                raise kind("mine")
        with pytest.raises(ZeroDivisionError), RankWatch(0.05) as watch, watch.named():
            watch.look_after(launched(well))
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), RankWatch(0.05) as watch, watch.named():
            raise ZeroDivisionError
    finally:
        well.kill()
        well.wait()


def test_processes_that_end_well_end_nothing():
    done = started("")
    with RankWatch(0.02) as watch, watch.named():
        watch.look_after(launched(done))
        wait_for(lambda: done.poll() == 0)
        time.sleep(0.2)


def test_lightning_is_left_nothing_to_kill():
    """Its observer goes by that list, and would kill this process without a word."""
    well = started("import time; time.sleep(100)")
    try:
        with RankWatch(0.02) as watch:
            trainer = launched(well)
            watch.look_after(trainer)
            wait_for(lambda: trainer.strategy.launcher.procs == [])
    finally:
        well.send_signal(signal.SIGKILL)
        well.wait()
