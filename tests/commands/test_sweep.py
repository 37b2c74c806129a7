"""`rbft sweep` as a command: it starts without torch, says what it will do, and its exit code says how it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.runs import REPOSITORY, fit, write_experiment
from tests.support.sweeps import STAND_IN, drive, write_sweep

from rbft.__main__ import main
from rbft.commands import sweep as command
from rbft.runs.stage_record import StageRecord, write_record
from rbft.sweep import driver
from rbft.sweep.display import SweepBoard
from rbft.sweep.grid import read_sweep
from rbft.sweep.progress import Progress
from rbft.sweep.state import completion_marks, read_record

pytest_plugins = ["tests.support.run_fixtures"]
COMMAND = (sys.executable, "-m", "rbft", "sweep")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rbft sweep` in this process starts stand-ins."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(
        driver.Driver.__init__, "__kwdefaults__", driver.Driver.__init__.__kwdefaults__ | {"command": STAND_IN}
    )


def sweep(path: Path, *flags: str) -> int:
    return main(["sweep", "--config", str(path), *flags])


def test_no_torch_before_a_run_is_started(tmp_path):
    path = write_sweep(tmp_path, grid={"seed_everything": [0, 1]})
    code = (
        "import sys; from rbft.__main__ import main\n"
        f"assert main(['sweep', '--config', {str(path)!r}, '--dry_run']) == 0\n"
        "import rbft.sweep.driver, rbft.sweep.worker, rbft.sweep.clusters, rbft.sweep.summary\n"
        "assert not {'torch', 'lightning', 'transformers', 'av'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 0 finished, 0 running, 2 waiting, 0 failed; this machine" in done.stdout
    assert not (tmp_path / "runs").exists(), "a plan writes nothing"


def test_help_and_wrong_usage(capsys, tmp_path):
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", "--help"])
    assert "--per_process" in capsys.readouterr().out
    assert main(["sweep"]) == 2
    assert "rbft sweep: the following arguments are required: --config" in capsys.readouterr().err
    path = write_sweep(tmp_path, grid={"seed_everything": [0]})
    assert sweep(path, "--launcher", "cloud") == 2
    assert sweep(path, "--slots", "0") == 2
    assert "launch.slots: 0" in capsys.readouterr().err
    assert sweep(path, "--per_process", "2", "--trainer.devices", "2") == 2
    assert "launch.per_process: runs that start several processes" in capsys.readouterr().err


def test_without_locks_of_the_kernel_a_sweep_is_planned_and_not_started(tmp_path, monkeypatch, capsys):
    path = write_sweep(tmp_path, grid={"seed_everything": [0, 1]})
    monkeypatch.setattr(command, "KERNEL_LOCKS", False)
    assert sweep(path, "--dry_run") == 0
    assert sweep(path) == 2
    assert "locks that this system has not (fcntl: Linux, macOS, WSL)" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_ins")
def test_exit_codes_and_summary(tmp_path, capsys):
    path = write_sweep(tmp_path / "good", grid={"seed_everything": [0, 1, 2]})
    assert sweep(path) == 0
    said = capsys.readouterr().out
    assert "3 runs: 3 finished, 0 running, 0 waiting, 0 failed" in said
    (group,) = json.loads((tmp_path / "good" / "runs" / "sweeps" / "grid" / "summary.json").read_text())
    figures = [json.loads(path.read_text())["test/accuracy"] for path in (tmp_path / "good").rglob("metrics.json")]
    assert group["accuracy"]["mean"] == pytest.approx(sum(figures) / 3) and group["accuracy"]["count"] == 3
    bad = write_sweep(tmp_path / "bad", {"at_seed": {1: "explained"}}, grid={"seed_everything": [0, 1]})
    assert sweep(bad) == 1
    captured = capsys.readouterr()
    assert "1 of 2 runs failed" in captured.err and "zero_shot-seed1: the loss is not finite." in captured.err
    assert " 1/2 " in captured.out, "a missing run is told"


@pytest.mark.usefixtures("stand_ins")
def test_what_is_to_be_chosen_is_planned_and_a_run_that_cannot_be_chosen_is_named(tmp_path, capsys):
    path = write_sweep(tmp_path, grid={"model.optim.lr": [0.1, 0.2]}, choose=["model.optim.lr"])
    planned = tmp_path / "runs" / "sweeps" / "grid" / "plan.json"
    for run in read_sweep(str(path), [], {}).runs:
        run.folder.mkdir(parents=True)
        (run.folder / "experiment.yaml").write_text("data: {}")
        (run.folder / "labels.json").write_text('["a"]')
    assert sweep(path) == 1
    assert "zero_shot-lr0.1/seed0: this run was not scored on validation videos" in capsys.readouterr().err
    assert json.loads(planned.read_text())["choose"] == ["model.optim.lr"]
    assert json.loads(planned.read_text())["baseline"] is None
    write_sweep(tmp_path, grid={"model.optim.lr": [0.1, 0.2]}, baseline={"model.optim.lr": 0.2})
    sweep(path)
    assert json.loads(planned.read_text())["baseline"] == {"model.optim.lr": 0.2}, "a report compares with it, too"


@pytest.mark.usefixtures("stand_ins")
def test_finished_runs_are_looked_at_again_when_asked(tmp_path):
    path = write_sweep(tmp_path, grid={"seed_everything": [0]})
    started = tmp_path / "runs" / "journal" / "zero_shot-seed0.started"
    for flags, count in (((), 1), ((), 1), (("--verify",), 2)):
        assert sweep(path, *flags) == 0
        assert len(started.read_text().splitlines()) == count


@pytest.mark.usefixtures("stand_ins")
def test_cost_is_judged_by_finished_runs(tmp_path, capsys):
    keys = {"grid": {"data.shots": [4, 16], "seed_everything": [0, 1, 2]}}
    path = write_sweep(tmp_path, **keys)
    assert sweep(path, "--dry_run") == 0
    assert "cost: not known before a run of this sweep is finished" in capsys.readouterr().out
    assert sweep(path) == 0
    plan = read_sweep(str(path), [], {})
    for run in plan.runs:
        stage = run.folder / "test" / "stage.json"
        if run.point["seed_everything"] == 0:
            seconds = 60.0 * run.point["data.shots"]
            (run.folder / "experiment.yaml").write_text("{data: {}, method: zero_shot}")
            write_record(stage.parent, StageRecord("test", "test", "", {}, {}, seconds, {}))
        else:
            (run.folder / "metrics.json").unlink()
    for run in plan.runs:
        record = plan.folder / "runs" / f"{run.id}.json"
        content = json.loads(record.read_text())
        if run.point["seed_everything"] == 0:
            record.write_text(json.dumps(content | {"marks": completion_marks(run.folder)}))
    capsys.readouterr()
    assert sweep(path, "--dry_run") == 0
    said = capsys.readouterr().out
    # two runs of 4 minutes and two of 16
    assert "6 runs: 2 finished, 0 running, 4 waiting, 0 failed" in said
    assert "cost: about 40 min of computing, 40 min with 1 at once (estimated from 2 finished run(s)" in said


def test_table_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    path = write_sweep(tmp_path, {"at_seed": {1: "explained"}}, grid={"seed_everything": [0, 1, 2]})
    assert drive(str(path), []) == 0
    plan = read_sweep(str(path), [], {})
    progress = {run.id: Progress(run) for run in plan.runs}
    first, second, third = progress.values()
    first.state, third.state = "finished", "running"
    second.state, second.record = "failed", read_record(plan.folder, second.run.id)
    console = Console(force_terminal=True, width=100, record=True, color_system=None)
    with SweepBoard(progress, console) as board:
        board.refresh()
    said = console.export_text()
    assert "zero_shot-seed1  failed    the loss is not finite." in said
    assert "zero_shot-seed0  finished  accuracy" in said
    assert "3 runs: 1 finished, 1 running, 0 waiting, 1 failed" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("per_process", [1, 2])
def test_real_runs(per_process, tmp_path, clips, family_folder):
    write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"))
    path = tmp_path / "grid.yaml"
    content = {
        "experiment": "tiny.yaml",
        "grid": {"method": ["rbft", "joint"], "seed_everything": [1]},
        "baseline": {"method": "joint"},
        "launch": {"slots": 1, "gpus": 0, "per_process": per_process},
    }
    path.write_text(json.dumps(content))
    command = [*COMMAND, "--config", str(path), "--run_root", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder, state = tmp_path / "runs" / "tiny", tmp_path / "runs" / "sweeps" / "grid"
    for method in ("rbft", "joint"):
        assert 0 <= json.loads((folder / method / "seed1" / "metrics.json").read_text())["test/accuracy"] <= 1
    summary = json.loads((folder / "joint" / "seed1" / "write" / "stage.json").read_text())["summary"]
    assert summary["taken_from"] == str(folder / "rbft" / "seed1" / "write")
    assert "write: rationales from a finished run" in (state / "logs" / "joint-seed1.log").read_text()
    compared, _ = json.loads((state / "summary.json").read_text())
    assert compared["comparison"]["tests"][0]["videos"] == 5
    # what the sweep left is what a plain run finds done
    plain = fit("--config", tmp_path / "tiny.yaml", "--run_root", tmp_path / "runs", "--seed_everything", "1")
    assert plain.code == 0 and "everything was done already" in plain.out
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and ": started" not in again.stdout
    assert "2 runs: 2 finished" in again.stdout
