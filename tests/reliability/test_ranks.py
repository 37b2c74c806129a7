"""Of two processes of a run one dies: the other ends within a minute and names it, and the command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.support.runs import REPOSITORY, write_experiment

pytest_plugins = ["tests.support.run_fixtures"]


def mine(folder: Path) -> list[int]:
    """Processes whose command line names this test's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process.pid)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("rank", "waits"),
    [
        pytest.param(1, -1, id="the second is killed"),
        pytest.param(1, 0, id="the second is killed and the first waits for ever"),
        pytest.param(0, 1, id="the first is killed and the second waits for ever"),
    ],
)
def test_one_is_killed(
    rank: int, waits: int, tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    arguments = {"rank": rank, "waits": waits, "marker": str(tmp_path / "killed")}
    callback = {"class_path": "tests.support.killed.KillRank", "init_args": arguments}
    config = write_experiment(
        tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), {"trainer": {"callbacks": [callback]}}
    )
    flags = (
        f"--config {config} --run_root {tmp_path / 'runs'} --method sft --stage classification --trainer.devices 2 "
        "--trainer.strategy ddp --allow-class tests.support.killed.KillRank"
    )
    command = [str(Path(sys.executable).with_name("rbft")), "fit", *flags.split()]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "said").open("w") as said, subprocess.Popen(command, stderr=said, env=environment) as process:
        deadline = time.monotonic() + 200
        while not (tmp_path / "killed").exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()[-2000:]
            time.sleep(0.05)
        start = time.monotonic()
        while mine(tmp_path):
            assert time.monotonic() - start < 60, "somebody is left"
            time.sleep(0.1)
        took = time.monotonic() - start
    text = (tmp_path / "said").read_text()
    print(f"all had ended {took:.1f} s after the kill")
    assert process.returncode == (1 if rank else -signal.SIGKILL), text
    assert text.count(f"rbft: process {rank} of this run (pid ") == 1, text
    assert ("was killed by SIGKILL" in text) == bool(rank)
    assert "Traceback" not in text
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "classification: continuing where it stopped" in again.stdout
