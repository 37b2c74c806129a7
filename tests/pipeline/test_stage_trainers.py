"""What a file says of progress, plugins and callbacks holds for each trainer of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.plugins.environments import LightningEnvironment
from tests.support.runs import fit, write_experiment

from rbft.experiment import read_experiment
from rbft.pipeline.stage_cli import read_stages
from rbft.training.checkpoint import AtomicCheckpointIO

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture
def config(tmp_path: Path, clips: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, Path("builtin/tiny"))


def test_a_progress_bar_that_is_not_wanted_is_left_out(config: Path, tmp_path: Path) -> None:
    command = ("--config", config, "--run_root", tmp_path / "runs", "--method", "sft")
    result = fit(*command, "--trainer.enable_progress_bar", "false")
    assert result.code == 0, result.err
    assert "epoch 1/1" not in result.out


def test_plugins_of_the_file_reach_the_trainer(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["trainer"]["plugins"] = [{"class_path": "LightningEnvironment"}]
    config.write_text(yaml.safe_dump(content))
    (entry, *_) = read_stages(read_experiment(["--config", str(config), "--method", "sft"]))
    made: Any = entry.make_trainer([], plugins=[AtomicCheckpointIO()], logger=False, enable_checkpointing=False)
    assert isinstance(made._accelerator_connector._cluster_environment_flag, LightningEnvironment)
    assert isinstance(made.strategy.checkpoint_io, AtomicCheckpointIO)


def test_what_a_callback_noted_in_one_training_does_not_act_in_the_next(config: Path) -> None:
    flags = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=train/loss"]
    (entry, *_) = read_stages(read_experiment(["--config", str(config), "--method", "sft", *flags]))
    first, second = (entry.make_trainer([], logger=False, enable_checkpointing=False) for _ in range(2))
    one, other = first.early_stopping_callback, second.early_stopping_callback
    assert one is not None and other is not None
    one.wait_count = 3
    assert other.wait_count == 0
