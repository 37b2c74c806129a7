"""Methods that answer in several ways or mix answers: interrupted, and on two processes, they answer the same."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.end_to_end.test_ddp import PROPORTIONAL, assert_same_predictions, on_two
from tests.support.runs import fit, rows, run_experiment, signal_once, write_experiment

from rbft.experiment import lay_over

pytest_plugins = ["tests.support.run_fixtures"]

TESTED = {"choose_on": "crossfit", "max_new_tokens": 4}
METHODS: dict[str, Any] = {
    "methods": {
        "gated": ["classification", "test_gated"],
        "caption_mixture": ["classification", "test_crossfit", "caption_probe", "combine"],
    },
    "stages": {
        "test_gated": {"kind": "test", "model": {"answering": {"mode": "gated", **TESTED}}},
        "test_crossfit": {"kind": "test", "model": {"answering": {"mode": "rationale", **TESTED}}},
        "caption_probe": {},
        "combine": {"probe_weight": None},
    },
}
OWN_BATCHES = 8  # of the stage that trains: all eight labelled videos, one at a time


@pytest.fixture
def model(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("qwen2_5_vl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "loop", "batch", "stage"),
    [
        pytest.param("gated", "train", OWN_BATCHES + 2, "test_gated", id="gated, in a fold"),
        pytest.param("gated", "test", 0, "test_gated", id="gated, while it answers"),
        pytest.param("caption_mixture", "predict", 1, "caption_probe", id="caption_mixture, while it describes"),
    ],
)
def test_a_stopped_stage_ends_at_the_same_answers(
    tmp_path: Path, clips: Path, model: Path, method: str, loop: str, batch: int, stage: str
) -> None:
    whole = write_experiment(tmp_path / "tiny.yaml", clips, model, METHODS)
    undisturbed = run_experiment(whole, tmp_path / "whole", method=method).folder
    changes = lay_over(METHODS, signal_once(tmp_path, signal.SIGINT, loop, batch))
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, changes)
    flags = ("--config", config, "--run_root", tmp_path / "runs", "--method", method)
    assert fit(*flags).code == 130
    folder = tmp_path / "runs" / "tiny" / method / "seed0"
    assert (folder / stage / "started.json").is_file() and not (folder / stage / "stage.json").exists()
    again = fit(*flags)
    assert again.code == 0, again.err
    assert "classification: done already" in again.out
    for name in ("predictions.jsonl", "metrics.json", "calibration.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gated", "caption_mixture"])
def test_two_processes_give_the_same_answers(tmp_path: Path, clips: Path, model: Path, method: str) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, lay_over(METHODS, PROPORTIONAL))
    one = run_experiment(config, tmp_path / "one", method=method).folder
    result = on_two(config, tmp_path / "two", "--data.batch_size", "2", "--method", method)
    assert result.code == 0, result.err
    two = tmp_path / "two" / "tiny" / method / "seed0"
    assert_same_predictions(two, one)
    mine, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (two, one))
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        # five answers, all nearly sure: their temperature is hardly determined, and rounding moves it
        tolerance = 1e-3 if key == "test/ece_calibrated" else 1e-4
        assert mine[key] == pytest.approx(value, abs=tolerance, nan_ok=True), key


@pytest.mark.slow
def test_two_processes_write_about_the_same_videos(tmp_path: Path, clips: Path, model: Path) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, lay_over(METHODS, PROPORTIONAL))
    direct = run_experiment(config, tmp_path / "direct", method="sft").folder
    surest = sorted(
        float(torch.tensor(row["log_likelihoods"]).double().softmax(0).max())
        for row in rows(direct / "predictions.jsonl")
    )
    # two of the five are less sure than the third
    gate = ("--stages.test_gated.model.answering.gate", repr(surest[2]))
    flags = (*gate, "--stages.test_gated.model.answering.choose_on", "validation")
    one = run_experiment(config, tmp_path / "one", *flags, method="gated").folder
    result = on_two(config, tmp_path / "two", "--data.batch_size", "2", "--method", "gated", *flags)
    assert result.code == 0, result.err
    two = tmp_path / "two" / "tiny" / "gated" / "seed0"
    assert_same_predictions(two, one)
    for folder in (one, two):
        assert json.loads((folder / "metrics.json").read_text())["test/share_reasoned"] == pytest.approx(0.4)
