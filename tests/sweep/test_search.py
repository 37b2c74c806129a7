"""A search tries few runs of a grid: as many as asked for of each method and draw, and near the good ones."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import yaml
from tests.support.runs import REPOSITORY
from tests.support.sweeps import drive, write_sweep

from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.runs.stage_record import StageRecord, write_record
from rbft.sweep.grid import Run, Sweep, read_sweep
from rbft.sweep.progress import Progress
from rbft.sweep.search import Search, was_tried
from rbft.sweep.summary import chosen_entries, summarise

RATES = [float(f"{10 ** (-6 + step / 5):.2g}") for step in range(26)]
BEST = 18
VIDEOS = 40


def plan(folder: Path, draws: int = 2) -> Sweep:
    (folder / "tiny.yaml").write_text("stages: {classification: {}, test: {}}")
    content = {
        "experiment": "tiny.yaml",
        "grid": {"method": ["sft"], "data.draw": list(range(draws)), "model.optim.lr": RATES},
        "choose": ["model.optim.lr"],
        "flags": {"run_root": str(folder / "runs")},
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(content))
    return read_sweep(str(folder / "grid.yaml"), [], {})


def finish(run: Run) -> None:
    """The nearer its learning rate is to the best one, the more validation videos are right."""
    right = VIDEOS - 2 * abs(RATES.index(run.point["model.optim.lr"]) - BEST)
    run.folder.mkdir(parents=True)
    (run.folder / "experiment.yaml").write_text(yaml.safe_dump({"data": {}, "method": "sft"}))
    (run.folder / "metrics.json").write_text(json.dumps({"test/accuracy": right / VIDEOS}))
    (run.folder / "labels.json").write_text(json.dumps(["a", "b"]))
    rows = [
        Prediction(f"{n}", f"{n}.mp4", "a", "a" if n < right else "b", (0.9, 0.1) if n < right else (0.1, 0.9), (0, 0))
        for n in range(VIDEOS)
    ]
    write_predictions(run.folder / "predictions.jsonl", rows)
    write_predictions(run.folder / "test" / "validation.jsonl", rows)
    write_record(run.folder / "test", StageRecord("test", "test", "0", {}, {}, 1.0, {}))


def carry_out(sweep: Sweep, trials: int, progress: dict[str, Progress] | None = None) -> list[str]:
    """The runs that a search tries, in order, one after another."""
    progress = progress or {run.id: Progress(run) for run in sweep.runs}
    tried: list[str] = []
    while True:
        # a new one each time, as where a sweep is stopped after each run
        allowed = Search(sweep, trials).allowed(progress)
        waiting = sorted(name for name in allowed if progress[name].state == "waiting")
        if not waiting:
            return tried
        finish(progress[waiting[0]].run)
        progress[waiting[0]].state = "finished"
        tried.append(waiting[0])


def test_few_runs_of_each_draw_are_tried_and_near_the_good_ones(tmp_path):
    pytest.importorskip("optuna")
    sweep = plan(tmp_path)
    progress = {run.id: Progress(run) for run in sweep.runs}
    tried = carry_out(sweep, 12, progress)
    assert len(tried) == len(set(tried)) == 24 == Search(sweep, 12).runs
    suggested: list[int] = []
    for draw in (0, 1):
        runs = [progress[name].run for name in tried if progress[name].run.point["data.draw"] == draw]
        distances = [abs(RATES.index(run.point["model.optim.lr"]) - BEST) for run in runs]
        assert len(distances) == 12 and min(distances) <= 2, distances
        suggested += distances[4:]
    # all values are 7.7 from the best one in the mean
    assert sum(suggested) / len(suggested) < 6, suggested
    begun = [entry for entry in progress.values() if was_tried(entry)]
    assert len(begun) == 24
    (group,) = summarise(sweep, begun)
    assert group.accuracy is not None and (group.accuracy.count, group.runs) == (2, 2)
    best = max(entry.accuracy() or 0 for entry in begun)
    assert {entry.accuracy() for entry in chosen_entries(sweep, begun)} >= {best}


def test_the_same_results_give_the_same_suggestions_and_one_at_a_time(tmp_path):
    pytest.importorskip("optuna")
    sweep = plan(tmp_path, draws=1)
    progress = {run.id: Progress(run) for run in sweep.runs}
    (first,) = Search(sweep, 4).allowed(progress)
    assert Search(sweep, 4).allowed(progress) == {first}
    progress[first].state = "running"
    assert Search(sweep, 4).allowed(progress) == {first}, "the next one waits for what this one shows"
    progress[first].state = "failed"
    assert len(Search(sweep, 4).allowed(progress)) == 2, "a failed run is one that was tried"


def test_more_trials_than_values_are_all_of_them(tmp_path):
    pytest.importorskip("optuna")
    sweep = plan(tmp_path, draws=1)
    assert len(carry_out(sweep, 50)) == len(RATES)


def test_what_cannot_be_searched(tmp_path, monkeypatch):
    sweep = plan(tmp_path)
    with pytest.raises(ConfigError, match="at least 2 runs"):
        Search(sweep, 1)
    path = write_sweep(tmp_path / "other", grid={"seed_everything": [0, 1]})
    with pytest.raises(ConfigError, match="nothing to search; name swept keys"):
        Search(read_sweep(str(path), [], {}), 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigError, match=r"pip install 'rbft\[search\]'"):
        Search(sweep, 2)


def test_the_driver_starts_what_it_may(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    path = write_sweep(tmp_path, grid={"seed_everything": [0, 1, 2]}, launch={"slots": 1})

    def allowed(progress):
        done = [name for name, entry in progress.items() if entry.state == "finished"]
        return {"zero_shot-seed2"} if not done else {*done, "zero_shot-seed0"}

    assert drive(str(path), [], allowed=allowed) == 0
    started = sorted(path.name for path in (tmp_path / "runs" / "journal").glob("*.started"))
    assert started == ["zero_shot-seed0.started", "zero_shot-seed2.started"]
