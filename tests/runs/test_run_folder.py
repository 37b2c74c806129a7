"""A run's folder is read back as it was left, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.finished_runs import CLASSES, write_run

from rbft.errors import DataError
from rbft.runs.run_folder import RunFolder, find_runs, read_accuracy


def test_runs_are_found_below_a_folder_but_not_what_was_set_aside(tmp_path):
    run = write_run(tmp_path, "sft", 12)
    other = write_run(tmp_path, "sft", 12, seed=1)
    other.rename(other.with_name("seed1.old-1"))
    nested = run / "classification" / "experiment.yaml"
    nested.write_text("data: {}")
    assert find_runs(tmp_path) == [run]
    assert find_runs(run) == [run]


def test_what_a_run_says_of_itself(tmp_path):
    run = RunFolder(write_run(tmp_path, "rbft", 12, shots=8, seed=2, experiment="falls"))
    assert (run.experiment, run.method, run.labels) == ("falls", "rbft", CLASSES)
    assert (run.setting("data.shots"), run.setting("seed_everything"), run.setting("data.none.at.all")) == (8, 2, None)
    assert list(run.stages) == ["write", "rationale", "classification", "test"], "in the order of the method"
    assert run.seconds == 240.0
    assert run.accuracy == 0.5
    assert run.metrics["test/auroc"] is None
    assert [folder.name for folder, _ in run.stages_of("test", "write")] == ["write", "test"]


def test_an_unfinished_run_has_no_figures(tmp_path):
    folder = write_run(tmp_path, "sft", 12)
    (folder / "metrics.json").unlink()
    assert (RunFolder(folder).accuracy, RunFolder(folder).metrics) == (None, {})


@pytest.mark.parametrize("value", ["0.5", True, 1.5, -0.1, [0.5]])
def test_an_accuracy_that_is_none_is_refused(tmp_path, value):
    (tmp_path / "metrics.json").write_text(json.dumps({"test/accuracy": value}))
    with pytest.raises(DataError, match=r"metrics\.json.*test/accuracy"):
        read_accuracy(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "ask"),
    [
        ("experiment.yaml", "[", "config"),
        ("experiment.yaml", "- a", "config"),
        ("labels.json", '{"a": 1}', "labels"),
        ("labels.json", '["a", 1]', "labels"),
        ("metrics.json", "[0.5]", "accuracy"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, name, text, ask):
    folder = write_run(tmp_path, "sft", 12)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=name):
        getattr(RunFolder(folder), ask)
