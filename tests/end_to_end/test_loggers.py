"""Loggers named in an experiment hear what TensorBoard hears, beside it and not in its place."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import fit, run_experiment, write_experiment

from rbft.predict import Classifier

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.mark.slow
def test_a_logger_of_the_experiment_is_added(clips: Path, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "csv"), "name": "mine"},
    }
    changes = {"trainer": {"logger": [logger]}}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), changes)
    run = run_experiment(config, tmp_path / "runs", method="sft")
    rows = [row for file in sorted((tmp_path / "csv").rglob("metrics.csv")) for row in csv.DictReader(file.open())]
    assert len([row for row in rows if row.get("train/loss")]) == 3, "one row a step"
    assert len([row for row in rows if row.get("test/accuracy")]) == 1
    for stage in ("classification", "test"):
        assert list((run.folder / stage / "tensorboard").glob("events.*")), "TensorBoard is there as ever"
    before = sorted((tmp_path / "csv").rglob("*"))
    (answer,) = Classifier(run.folder).predict([next(clips.rglob("*.mp4"))])
    assert answer.predicted is not None
    assert sorted((tmp_path / "csv").rglob("*")) == before, "predicting is no experiment"


def test_no_logger_at_all_is_refused_and_a_missing_library_is_named(clips: Path, tmp_path: Path) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, Path("builtin/tiny"))
    refused = fit("--config", config, "--method", "sft", "--trainer.logger", "false", "--dry_run")
    assert refused.code == 2 and "trainer.logger: every run writes TensorBoard files" in refused.err
    try:
        import wandb  # noqa: F401
    except ImportError:
        missing = fit("--config", config, "--method", "sft", "--trainer.logger", "WandbLogger", "--dry_run")
        assert missing.code == 2 and "wandb" in missing.err and missing.err.count("\n") == 1, missing.err
