"""What fsdp2 cannot do is refused before anything is trained, with a setting that is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.runs import fit, write_experiment

pytest_plugins = ["tests.support.run_fixtures"]

SHARDED = {"trainer": {"accelerator": "cpu", "devices": 1, "accumulate_grad_batches": 2, "strategy": "fsdp2"}}


def refusal(config: Path, tmp_path: Path, *flags: str) -> str:
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--dry_run", *flags)
    assert result.code == 2 and not (tmp_path / "runs").exists()
    return result.err


@pytest.fixture
def experiment(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> Callable[..., Path]:
    def write(changes: Mapping[str, Any]) -> Path:
        return write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), SHARDED | changes)

    return write


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        (("--model.answering.mode", "mixture"), r"mode is mixture, strength 1\.0"),
        (("--model.answering.strength", "0.5"), r"mode is direct, strength 0\.5"),
        (("--model.answering.strength", "null"), "mode is direct, strength None"),
    ],
)
def test_answers_that_need_whole_weights(experiment: Callable[..., Path], tmp_path: Path, flags: Any, how: str) -> None:
    config = experiment({})
    assert fit("--config", config, "--run_root", tmp_path / "runs", "--dry_run").code == 0
    said = refusal(config, tmp_path, *flags)
    assert re.search(f"the stage 'test': trainer.strategy fsdp2 .*{how}.*strategy: ddp", said)


@pytest.mark.parametrize(
    "name", ["rbft.training.sharding.ShardedStrategy", "lightning.pytorch.strategies.ModelParallelStrategy"]
)
def test_a_strategy_that_is_named_by_its_class(experiment: Callable[..., Path], tmp_path: Path, name: str) -> None:
    config = experiment({"trainer": {**SHARDED["trainer"], "strategy": {"class_path": name}}})
    said = refusal(config, tmp_path, "--model.answering.mode", "mixture")
    assert "the stage 'test': trainer.strategy fsdp2 answers directly and at full strength only" in said


def test_the_layer_that_is_advised_is_accepted(experiment: Callable[..., Path], tmp_path: Path) -> None:
    config = experiment({})
    content = yaml.safe_load(config.read_text())
    content["stages"]["test"] = {"trainer": {"strategy": "ddp"}, "model": {"answering": {"mode": "rationale"}}}
    config.write_text(yaml.safe_dump(content))
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--dry_run")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        (
            {"classification": {"model": {"objective": {"init_args": {"anchor": 0.5}}}}},
            "classification': model.objective ClassificationObjective compares with .*strategy ddp, or set anchor to 0",
        ),
        (
            {"rationale": {"kind": "policy", "model": {"objective": {"init_args": {"anchor": 0.0}}}}},
            "rationale': model.objective PolicyObjective has the model write while it is trained.*strategy ddp[.]",
        ),
    ],
)
def test_objectives_that_need_whole_weights(
    experiment: Callable[..., Path], tmp_path: Path, stages: dict[str, Any], why: str
) -> None:
    config = experiment({"stages": stages})
    assert re.search(f"the stage '{why}", refusal(config, tmp_path))
