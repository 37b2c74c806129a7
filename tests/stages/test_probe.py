"""The method `probe` from end to end: what it leaves is what a test leaves, and is the same each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.runs import Run, fit, rows, run_experiment, write_experiment

from rbft.__main__ import main
from rbft.evaluation.linear_probe import STRENGTHS, choose_strength, fit_probe
from rbft.evaluation.predictions import read_predictions
from rbft.stages import probe as stage

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("probed")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen3_vl"), {"stages": {"probe": {}}})
    return run_experiment(config, folder / "runs", method="probe")


def test_it_leaves_what_a_test_leaves(probed):
    record = json.loads((probed.folder / "probe" / "stage.json").read_text())
    metrics = json.loads((probed.folder / "metrics.json").read_text())
    found = read_predictions(probed.folder / "predictions.jsonl")
    assert {"predictions.jsonl", "metrics.json"} <= record["outputs"].keys()
    assert metrics["test/num_videos"] == len(found) == 5
    assert metrics["test/accuracy"] == sum(p.predicted == p.label for p in found) / 5
    assert all(abs(sum(p.probabilities) - 1) < 1e-12 for p in found)
    assert record["summary"]["l2"] in STRENGTHS
    assert (record["summary"]["chosen_on"], record["summary"]["rows"]) == ("validation", 6)
    assert (probed.folder / "report.html").is_file()
    assert not (probed.folder / "probe" / "adapter").exists(), "nothing of the model is trained"
    assert "of memory at most (in probe)" in probed.result.out
    assert "a linear probe fitted to 6 videos, 5 tested, from the base model" in probed.result.out


def test_a_second_time_gives_the_same_bytes_and_a_third_does_nothing(probed, tmp_path):
    again = fit(
        "--config", probed.config, "--run_root", tmp_path, "--method", "probe", "--data.cache_features", "false"
    )
    assert again.code == 0, again.err
    folder = tmp_path / probed.folder.relative_to(probed.root)
    assert (folder / "predictions.jsonl").read_bytes() == (probed.folder / "predictions.jsonl").read_bytes()
    third = fit("--config", probed.config, "--run_root", tmp_path, "--method", "probe")
    assert "everything was done already" in third.out


def test_it_is_fitted_to_training_videos_and_chosen_on_validation_videos(probed, tmp_path, monkeypatch):
    fitted, chosen = [], []

    def fit_noted(features, labels, classes, strength):
        fitted.append((features.shape, labels.tolist(), classes))
        return fit_probe(features, labels, classes, strength)

    def choose_noted(features, labels, classes, validation, groups):
        chosen.append((len(features), len(set(groups)), validation[0].shape, validation[1].tolist()))
        return choose_strength(features, labels, classes, validation, groups=groups)

    monkeypatch.setattr(stage, "fit_probe", fit_noted)
    monkeypatch.setattr(stage, "choose_strength", choose_noted)
    assert fit("--config", probed.config, "--run_root", tmp_path, "--method", "probe").code == 0
    width = fitted[0][0][1]
    assert fitted == [((6, width), [0, 0, 0, 1, 1, 1], 2)]
    assert chosen == [(6, 6, (2, width), [0, 1])]


def test_the_probe_sees_what_the_stage_shows_it(probed, tmp_path):
    """All clips grey: nothing is left to tell them apart by."""
    done = fit("--config", probed.config, "--run_root", tmp_path, "--method", "probe", "--data.clip_control", "blank")
    assert done.code == 0, done.err
    chances = np.array([row["probabilities"] for row in rows(next(tmp_path.glob("*/*/*")) / "predictions.jsonl")])
    assert np.allclose(chances, chances[0], atol=1e-6)


def test_a_probe_cannot_be_predicted_with(probed, capsys, clips):
    assert main(["predict", "--run", str(probed.folder), str(clips)]) == 1
    assert "a control that nothing is predicted with" in capsys.readouterr().err
