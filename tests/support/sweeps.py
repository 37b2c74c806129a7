"""Sweeps of stand-in runs: a command that takes a moment, leaves a run folder, and does what its experiment says.

As a script it is a whole driver over such runs: `python -m tests.support.sweeps SWEEP_FILE [flags]`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rbft.experiment import read_experiment
from rbft.sweep.display import SweepBoard
from rbft.sweep.driver import Driver
from rbft.sweep.grid import read_sweep
from rbft.sweep.launchers import make_launcher
from rbft.sweep.progress import Progress

STAND_IN = (sys.executable, "-m", "tests.support.sweeps", "--stand-in")
STAND_IN_ENTRY = "tests.support.sweeps:preload"


def write_sweep(folder: Path, behaviour: dict[str, Any] | None = None, **keys: Any) -> Path:
    """An experiment whose `stand_in` section says how its runs behave, and a sweep over it."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment = {"stages": {"test": {}}, "method": "zero_shot", "stand_in": behaviour or {}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    path = folder / "grid.yaml"
    path.write_text(
        yaml.safe_dump(
            {"experiment": "tiny.yaml", "flags": {"run_root": str(folder / "runs")}, **keys}, sort_keys=False
        )
    )
    return path


def preload() -> Callable[[list[str]], int]:
    """What a worker that has imported before hands to its forks."""
    return stand_in


def stand_in(args: list[str]) -> int:
    """A run: notes its start, takes `seconds`, behaves as told at its seed, leaves its figures and notes its end."""
    experiment = read_experiment(args)
    seed = int(experiment.run_dir.name.removeprefix("seed"))
    behaviour = yaml.safe_load(Path(experiment.files[0]).read_text())["stand_in"]
    journal = experiment.run_dir.parents[2] / "journal"
    journal.mkdir(parents=True, exist_ok=True)
    visit = f"{experiment.variant}-seed{seed}"
    started = journal / f"{visit}.started"
    before = len(started.read_text().splitlines()) if started.exists() else 0
    with started.open("a") as stream:
        stream.write(
            f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')} {len(os.sched_getaffinity(0))} "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n"
        )
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    deadline = time.monotonic() + behaviour.get("seconds", 0.2)
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if asked:
            print("rbft: stopped, and everything so far is saved.", file=sys.stderr)
            return 128 + asked[0]
    what = behaviour.get("at_seed", {}).get(seed)
    if what == "killed" or (what == "killed once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raises":
        raise RuntimeError("CUDA error: out of memory")
    if what == "configuration":
        print("rbft: data.shots: is wrong; set it to 1.", file=sys.stderr)
        return 2
    if what == "explained":
        print("rbft: the loss is not finite.", file=sys.stderr)
        return 1
    experiment.run_dir.mkdir(parents=True, exist_ok=True)
    accuracy = (seed * 37 + sum(map(ord, experiment.variant))) % 100 / 100
    (experiment.run_dir / "metrics.json").write_text(json.dumps({"test/accuracy": accuracy}))
    with (journal / f"{visit}.finished").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    return 0


def drive(path: str, flags: list[str], until: float | None = None, allowed: Any = None) -> int:
    """A driver over stand-ins, as `rbft sweep` makes it; returns the signal that stopped it."""
    plan = read_sweep(path, flags, {})
    progress = {run.id: Progress(run) for run in plan.runs}
    launcher = make_launcher(plan.launch, plan.folder.absolute(), len(plan.runs))
    with SweepBoard(progress, Console(highlight=False, soft_wrap=True)) as board:
        return Driver(
            plan, launcher, progress, board, command=STAND_IN, entry=STAND_IN_ENTRY, until=until, allowed=allowed
        ).run()


if __name__ == "__main__":
    if sys.argv[1] == "--stand-in":
        sys.exit(stand_in(sys.argv[2:]))
    sys.exit(drive(sys.argv[1], sys.argv[2:]))
