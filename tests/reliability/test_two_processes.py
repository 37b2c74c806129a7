"""What goes wrong on one of two processes stops both at the same step, told once and in full."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.killed import Command, logged, step_log
from tests.support.runs import write_experiment

from rbft.training.checkpoint import MANIFEST, AtomicCheckpointIO
from rbft.training.finite_check import are_finite

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_of_two(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    log = tmp_path / "steps.jsonl"
    spoil = {"class_path": "tests.support.killed.SpoilLoss", "init_args": {"rank": 1, "index": 2}}
    callbacks = [*step_log(log)["trainer"]["callbacks"], spoil]
    changes = {"trainer": {"callbacks": callbacks, "max_epochs": 2}}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), changes)
    flags = f"--config {config} --run_root {tmp_path / 'runs'} --method sft --stage classification"
    two = "--trainer.devices 2 --trainer.strategy ddp --trainer.accumulate_grad_batches 1"
    command = Command((*flags.split(), *two.split()), tmp_path / "said", ranks=2)
    start = time.monotonic()
    assert command.to_its_end() == [1, 1]
    said = command.out.read_text()
    print(f"both had ended {time.monotonic() - start:.1f} s after the start")
    assert "Traceback" not in said
    told = [line for line in said.splitlines() if line.startswith("rbft: ")]
    assert len(set(told)) == 1, "both processes know the same"
    assert "the loss became nan at step 2, in the batch of " in told[0] and "Lower model.optim.lr" in told[0]
    begun = [max(line["index"] for line in logged(log, "classification", "begin", rank)) for rank in (0, 1)]
    assert begun == [2, 2], "neither begins another batch"
    assert told[0].count(".mp4") == 1, "the batch of the other process is not blamed"
    place = AtomicCheckpointIO().load_checkpoint(
        tmp_path / "runs" / "tiny" / "sft" / "seed0" / "classification" / "checkpoints" / MANIFEST
    )
    assert place["global_step"] == 2
    assert are_finite(place["state_dict"].values())
