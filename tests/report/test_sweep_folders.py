"""A report of a sweep's folder has the groups, and the figures, that the sweep itself had at its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.finished_runs import write_run

from rbft.evaluation.comparison import Group, compare
from rbft.files import read_json, write_json
from rbft.report.collection import choose_baseline, collect, planned_replicates
from rbft.sweep.driver import Driver
from rbft.sweep.grid import Sweep, read_sweep
from rbft.sweep.progress import Progress
from rbft.sweep.summary import summarise

METHODS = {"method": ["sft", "zero_shot"]}
SWEEPS: list[dict[str, Any]] = [
    {"grid": {"seed_everything": [0, 1], "data.draw": [0, 1, 2], **METHODS}},
    {"grid": {"seed_everything": [0, 1], "data.draw": [0, 1, 2], **METHODS}, "replicates": ["data.draw"]},
    {
        "grid": {"seed_everything": [0, 1], "data.draw": [0, 1, 2], "method": ["sft"]},
        "replicates": ["data.draw"],
        "baseline": {"seed_everything": 0},
    },
    {"grid": {"data.num_frames": [4, 8], **METHODS}, "replicates": ["data.num_frames"]},
    # settings that make no groups of their own, unless a sweep is over them
    {"grid": {"data.root": ["a", "b"], "seed_everything": [0, 1], **METHODS}},
    {"grid": {"trainer.devices": [1, 2], "seed_everything": [0, 1], **METHODS}},
    # a method that has one of the values
    {
        "grid": {"data.num_frames": [4, 8], "seed_everything": [0, 1], **METHODS},
        "exclude": [{"method": "zero_shot", "data.num_frames": 8}],
    },
    # a key of one value beside it
    {
        "grid": {"model.optim.lr": [0.001], "seed_everything": [0, 1], **METHODS},
        "baseline": {"method": "zero_shot", "model.optim.lr": 0.001},
    },
]


def write_runs(root: Path, keys: dict[str, Any]) -> tuple[Sweep, list[Progress]]:
    """A sweep whose runs are finished, with more and more test videos right, and its plan."""
    (root / "tiny.yaml").write_text("stages: {classification: {}, test: {}, zero_shot: {kind: test}}")
    content = {"experiment": "tiny.yaml", "baseline": {"method": "sft"}, "flags": {"run_root": "runs"}, **keys}
    (root / "grid.yaml").write_text(yaml.safe_dump(content))
    sweep = read_sweep("grid.yaml", [], {})
    for number, run in enumerate(sweep.runs):
        changes: dict[str, Any] = {"variant": run.folder.parent.name}
        for key, value in run.point.items():
            inner = changes
            *above, last = key.split(".")
            for part in above:
                inner = inner.setdefault(part, {})
            inner[last] = value
        made = write_run(root / "made", run.point["method"], 6 + number * number % 17, changes=changes)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, run.folder)
    driver: Any = Driver
    driver(sweep, None, {}, None).write_plan(sweep.runs)
    return sweep, [Progress(run, "finished") for run in sweep.runs]


def reported(folder: Path) -> list[Group]:
    entries = collect([str(folder)])
    return compare(
        [entry.member() for entry in entries],
        choose_baseline(entries, None, [str(folder)]),
        planned_replicates([str(folder)]),
    )


def figures(groups: list[Group]) -> list[str]:
    """Of each group all but its name, which has no settings that all runs share."""
    compared = [(group, group.comparison) for group in groups]
    return sorted(
        f"{group.point['method']} {group.runs} {group.accuracy} {comparison and (comparison.difference, comparison.p)}"
        for group, comparison in compared
    )


@pytest.mark.parametrize("keys", SWEEPS, ids=[str(number) for number in range(len(SWEEPS))])
def test_groups_are_those_of_the_sweep(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, progress = write_runs(tmp_path, keys)
    wanted = summarise(sweep, progress)
    assert any(group.comparison is not None for group in wanted)
    assert figures(reported(sweep.folder)) == figures(wanted)


def test_a_plan_that_does_not_say_what_repeats_a_run_is_of_seeds_and_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, _ = write_runs(tmp_path, SWEEPS[1])
    plan = {key: value for key, value in read_json(sweep.folder / "plan.json").items() if key != "replicates"}
    write_json(sweep.folder / "plan.json", plan)
    assert [group.runs for group in reported(sweep.folder)] == [6, 6]


def test_a_run_root_that_was_moved_or_copied_is_reported_where_it_is(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    sweep, progress = write_runs(home, SWEEPS[0])
    wanted = figures(summarise(sweep, progress))
    copied = shutil.copytree(home / "runs", tmp_path / "copied")
    shutil.rmtree(sweep.runs[0].folder)
    assert figures(reported(copied / "sweeps" / "grid")) == wanted, "the copy has all runs"
    assert figures(reported(sweep.folder)) != wanted
    home.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    assert figures(reported(copied / "sweeps" / "grid")) == wanted
    # a sweep's folder alone: its runs are where they were
    (tmp_path / "gone").rename(home)
    alone = shutil.copytree(home / "runs" / "sweeps" / "grid", tmp_path / "alone" / "sweeps" / "grid")
    assert [entry.finished for entry in collect([str(alone)])].count(False) == 1
