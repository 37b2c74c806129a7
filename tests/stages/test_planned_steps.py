"""A stage trains for the steps that its plan says, and its learning rate goes down over these."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.runs import fit, write_experiment

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture
def config(tmp_path: Path, clips: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, Path("builtin/tiny"))


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": None}, 3),
        ({"max_epochs": 2, "limit_train_batches": 3}, 4),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": -1, "max_steps": 2}, 2),
        ({"max_epochs": 1, "max_steps": 2}, 2),
        ({"max_epochs": 1, "max_steps": 200}, 3),
    ],
)
def test_a_stage_trains_for_as_many_steps_as_its_plan_says(
    config: Path, tmp_path: Path, settings: dict[str, Any], steps: int
) -> None:
    content = yaml.safe_load(config.read_text())
    content["stages"]["classification"]["trainer"] = settings
    content["model"]["optim"] |= {"warmup": 0.0}
    config.write_text(yaml.safe_dump(content))
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "sft")
    assert result.code == 0, result.err
    assert f"6 rows an epoch, {steps} steps" in result.out
    folder = tmp_path / "runs" / "tiny" / "sft" / "seed0" / "classification"
    assert json.loads((folder / "stage.json").read_text())["summary"]["steps"] == steps
    # the rate, which is noted for each micro-batch, goes down over all of them
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tag = next(tag for tag in events.Tags()["scalars"] if tag.startswith("lr-"))
    rates = list(dict.fromkeys(event.value for event in events.Scalars(tag)))
    assert rates == pytest.approx([1e-2 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)])
