"""`rbft compare`: from finished runs to a verdict, a page and a run to predict with; and all of it on real clips."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.support.finished_runs import write_run
from tests.support.runs import write_clips

from rbft.__main__ import main
from rbft.commands.compare import conclude
from rbft.sweep.comparison import Comparison, make_comparison
from rbft.sweep.driver import FIT, PRELOADED_FIT
from rbft.sweep.progress import Progress, method_seconds
from rbft.sweep.worker import Plan, write_plan
from rbft.terminal import make_console

RIGHT = {"sft": (12, 13, 11), "rbft": (16, 18, 16), "zero_shot": (5, 7, 4)}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    (tmp_path / "falls.yaml").write_text("stages: {write: {}, rationale: {}, classification: {}, test: {}}")
    args = ["--config", str(tmp_path / "falls.yaml"), "--run_root", str(tmp_path / "runs")]
    return make_comparison(args, {}, methods=list(RIGHT), draws=3)


def plant(comparison: Comparison, folder: Path, left_out: str = "") -> list[Progress]:
    """Finished runs with so many of 24 test videos right, where the comparison looks for them."""
    plan, progress = comparison.sweep, []
    for run in plan.runs:
        method, draw = run.point["method"], run.point["data.draw"]
        progress.append(Progress(run, "waiting" if method == left_out else "finished"))
        if method != left_out:
            changes = {"data": {"draw": draw}, "experiment": "falls"}
            made = write_run(folder / "made", method, RIGHT[method][draw], None, draw, changes=changes)
            run.folder.parent.mkdir(parents=True)
            shutil.copytree(made, run.folder)
    runs = {run.id: run for run in plan.runs}
    write_plan(Plan(plan.folder, Path.cwd(), FIT, PRELOADED_FIT, runs))
    return progress


def said(comparison: Comparison, progress: list[Progress]) -> str:
    console = make_console(alone=True)
    console._force_terminal, console.width = True, 80
    with console.capture() as captured:
        conclude(comparison, progress, console)
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get())


def test_verdict_page_and_the_run_to_use(comparison, tmp_path):
    text = said(comparison, plant(comparison, tmp_path))
    words = " ".join(text.split())
    assert "On your clips RB-FT is 19.4 points better than direct SFT" in words
    assert "worse: the untrained model" in words
    assert "Take RB-FT; its run of the first draw is ready." in words
    run = tmp_path / "runs" / "falls" / "rbft-draw0" / "seed0"
    assert f"Use: rbft predict --run {run} VIDEO" in words
    assert all(len(line) <= 80 for line in text.splitlines() if "runs" not in line), "but for paths"
    folder = tmp_path / "runs" / "sweeps" / "compare-falls"
    found = json.loads((folder / "verdict.json").read_text())
    assert (found["outcome"], found["method"], found["run"]) == ("better", "rbft", str(run))
    page = (folder / "report.html").read_text()
    assert "<b>On your clips RB-FT is 19.4 points better" in page and f"rbft predict --run {run} VIDEO" in page


def test_what_is_finished_is_compared(comparison, tmp_path):
    text = " ".join(said(comparison, plant(comparison, tmp_path, left_out="rbft")).split())
    assert "RB-FT and direct SFT cannot be compared" in text and "0/3 missing" in text
    assert "/falls/sft-draw0/seed0 VIDEO" in text


def test_before_any_run_there_is_no_verdict(comparison):
    waiting = [Progress(run) for run in comparison.sweep.runs]
    assert conclude(comparison, waiting, Console(quiet=True)) is None
    assert not (comparison.sweep.folder / "report.html").exists()


def test_rationales_that_were_taken_from_another_run_cost_what_they_cost_there(comparison, tmp_path):
    progress = plant(comparison, tmp_path)
    taken = next(entry.run for entry in progress if entry.run.point["method"] == "rbft").folder / "write" / "stage.json"
    record = json.loads(taken.read_text())
    taken.write_text(json.dumps(record | {"seconds": 0.0, "summary": {"taken_from": "elsewhere"}}))
    assert method_seconds(progress) == {"sft": 120.0, "rbft": 240.0, "zero_shot": 60.0}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_clips_to_a_verdict_and_on_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_clips(tmp_path / "clips", {"train": (4, 4), "test": (2, 2)})
    line = ["compare", "clips", "--preset", "quick", "--methods", "sft,zero_shot", "--trainer.max_epochs", "1"]
    assert main([*line, "--draws", "1", "--dry_run"]) == 0
    out = capfd.readouterr().out
    assert "2 methods over 1 draw, 2 runs" in out and "cost: about" in out
    assert not list(tmp_path.rglob("metrics.json"))
    assert main([*line, "--draws", "1", "--hours", "0.000001"]) == 0
    assert "used up with 2 runs left" in capfd.readouterr().out
    assert main([*line, "--draws", "1"]) == 0
    out = capfd.readouterr().out
    assert (
        "1 draw is too few" in " ".join(out.split()) and (tmp_path / "runs/sweeps/compare-clips/report.html").is_file()
    )
    assert main([*line, "--draws", "3"]) == 0
    out = capfd.readouterr().out
    assert out.count(": started") == 4, "the first draw is not run again"
    found = yaml.safe_load((tmp_path / "runs/sweeps/compare-clips/verdict.json").read_text())
    assert found["outcome"] in ("better", "worse", "no difference", "too few draws")
    assert "checked again" not in out
    # a label is corrected: no draw may stay with the old one
    clip = next((tmp_path / "clips" / "train").rglob("*.mp4"))
    other = next(folder for folder in clip.parent.parent.iterdir() if folder != clip.parent)
    clip.rename(other / f"moved-{clip.name}")
    assert main([*line, "--draws", "3"]) == 0
    out = capfd.readouterr().out
    assert "the 6 finished runs were of; they are checked again" in " ".join(out.split())
    assert out.count(": started") == 6
    splits = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("splits.json")]
    assert splits and not any(clip.parent.name + "/" + clip.name in json.dumps(split) for split in splits)
    assert main([*line, "--draws", "3"]) == 0
    again = capfd.readouterr().out
    assert "checked again" not in again and ": started" not in again
    command = re.search(r"Use: rbft (predict --run \S+) VIDEO", out)
    assert command is not None
    assert main([*command[1].split(), str(next((tmp_path / "clips").rglob("*.mp4")))]) == 0
