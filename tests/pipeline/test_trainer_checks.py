"""Settings of Lightning's Trainer that would fail in a run, or spoil it, are refused before a video is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.runs import fit, write_experiment

from rbft.__main__ import main

pytest_plugins = ["tests.support.run_fixtures"]

TINY = Path("builtin/tiny")


@pytest.fixture
def config(tmp_path: Path, clips: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, TINY)


def refusal(config: Path, *flags: str, dry: bool = True) -> str:
    root = config.parent / "runs"
    more = ("--dry_run",) if dry else ()
    result = fit("--config", config, "--run_root", root, "--method", "sft", *more, *flags)
    assert result.code == 2 and not root.exists(), result.err
    assert "videos checked" not in result.out
    return result.err


REFUSED: list[tuple[str, str, str]] = [
    ("fast_dev_run", "true", "of a few batches as those of the whole training"),
    ("fast_dev_run", "3", "of a few batches as those of the whole training"),
    ("overfit_batches", "0.5", "of a few batches as those of the whole training"),
    ("barebones", "true", "a run logs and saves"),
    ("limit_test_batches", "1", "a part of the test videos would pass for those of all"),
    ("limit_val_batches", "0.5", "a part of the validation videos would pass for those of all"),
    ("limit_predict_batches", "2", "every training video is written about"),
    ("accumulate_grad_batches", "0", "0 must be at least 1"),
    ("check_val_every_n_epoch", "0", "0 must be at least 1"),
    ("val_check_interval", "7", "'classification' has 6 batches an epoch, so it cannot validate after every 7"),
    ("max_epochs", "-1", "'classification' needs a last step"),
    ("max_epochs", "-5", "`max_epochs` must be a non-negative integer or -1"),
    ("max_steps", "-2", "`max_steps` must be a non-negative integer or -1"),
    ("profiler", "bogus", "can only be one of"),
    ("gradient_clip_algorithm", "bogus", "gradient_clip_algorithm` bogus is invalid"),
    ("strategy", "ddp_spawn", "keep the weights for themselves; use ddp"),
    ("strategy", "fsdp", "fsdp is not supported; use ddp, or fsdp2"),
    ("strategy", "deepspeed_stage_2", "deepspeed_stage_2 is not supported"),
    ("strategy", "bogus", "'bogus' is none"),
    ("callbacks+", "BatchSizeFinder", "take BatchSizeFinder out"),
    ("callbacks+", "LearningRateFinder", "take LearningRateFinder out"),
    ("plugins+", "TorchCheckpointIO", "take TorchCheckpointIO out"),
]


@pytest.mark.parametrize(("key", "value", "said"), REFUSED)
def test_what_is_refused(config: Path, key: str, value: str, said: str) -> None:
    assert said in refusal(config, f"--trainer.{key}={value}")


def test_what_this_machine_lacks_is_refused_by_the_run_and_not_by_its_plan(config: Path) -> None:
    assert "is not a valid input using cpu accelerator" in refusal(config, "--trainer.devices", "0", dry=False)
    plan = fit("--config", config, "--method", "sft", "--dry_run", "--trainer.accelerator", "tpu")
    assert plan.code == 0, plan.err
    assert "'classification'" in refusal(config, "--trainer.accelerator", "tpu", dry=False)


@pytest.mark.parametrize(
    "flags",
    [
        ("limit_test_batches=1.0",),
        ("limit_val_batches=0",),
        ("limit_val_batches=1.0", "fast_dev_run=false"),
        ("val_check_interval=6",),
        ("val_check_interval=7", "check_val_every_n_epoch=null"),
        ("max_epochs=-1", "max_steps=2"),
        ("callbacks+=EarlyStopping", "callbacks.monitor=val/nll"),
    ],
)
def test_what_works_is_not(config: Path, flags: tuple[str, ...]) -> None:
    result = fit("--config", config, "--method", "sft", "--dry_run", *(f"--trainer.{flag}" for flag in flags))
    assert result.code == 0, result.err


def test_validation_videos_that_choose_cannot_be_left_out(config: Path) -> None:
    best = ("--model.selection.weights", "best", "--trainer.limit_val_batches", "0")
    assert "without the validation videos that choose" in refusal(config, *best)
    asked = ("--model.answering.mode", "validation", "--trainer.limit_val_batches", "0")
    assert "the stage 'test' without the validation videos that choose" in refusal(config, *asked)


def test_early_stopping_looks_at_what_is_logged(config: Path) -> None:
    early = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
    said = refusal(config, *early)
    assert "EarlyStopping looks at 'val/loss'" in said and "train/loss, val/nll, val/accuracy, val/macro_f1" in said
    early = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/nll")
    assert "has no validation videos" in refusal(config, *early, "--trainer.limit_val_batches=0")


def test_check_refuses_what_fit_refuses(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    command = ["check", "--config", str(config), "--method", "sft", "--run_root", str(root)]
    assert main([*command, "--trainer.accelerator", "tpu"]) == 0
    assert main([*command, "--trainer.profiler", "bogus"]) == 1
    assert re.search(r"trainer: the stage 'classification' cannot .*can only be one of", capsys.readouterr().out)
