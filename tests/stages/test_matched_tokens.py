"""Direct SFT that sees as many supervised tokens as RB-FT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.runs import REPOSITORY, fit, run_experiment, write_experiment

from rbft.__main__ import main

pytest_plugins = ["tests.support.run_fixtures"]

MATCHED: dict[str, Any] = {
    "methods": {"matched": ["write", "matched", "test"]},
    "stages": {"matched": {"kind": "classification", "rationale_epochs": 2, "trainer": {"max_epochs": 1}}},
}


@pytest.fixture
def experiment(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), MATCHED)


def summary(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder / stage / "stage.json").read_text())["summary"]


def test_it_trains_on_the_tokens_of_both_stages(experiment: Path, tmp_path: Path) -> None:
    run = run_experiment(experiment, tmp_path / "runs", method="matched")
    rbft = run_experiment(experiment, tmp_path / "runs", method="rbft")
    rationale, label = summary(rbft.folder, "rationale"), summary(rbft.folder, "classification")
    matched = summary(run.folder, "matched")
    # the same rationales: each method wrote them with the same seed
    tokens = 2 * rationale["supervised_tokens"] + label["supervised_tokens"]
    epochs = matched["steps"] / 3
    assert epochs == int(epochs) > 3
    assert abs(epochs * matched["supervised_tokens"] - tokens) <= matched["supervised_tokens"] / 2
    assert f"{int(epochs) - 1} epochs for the tokens of 2 epochs over 6 rationales, and 1 of its own" in run.result.out
    told = " ".join(run.result.out.split())
    assert "6 rows an epoch, 3 steps, and as many more as 2 epochs over the rationales have tokens" in told


def test_without_epochs_of_its_own_it_trains_on_the_tokens_of_stage_1_alone(experiment: Path, tmp_path: Path) -> None:
    only = ("--methods.only", "[write, rationale, test]", "--stages.matched.trainer.max_epochs", "0")
    rationale = run_experiment(experiment, tmp_path / "runs", *only, method="only")
    matched = run_experiment(experiment, tmp_path / "runs", *only, method="matched")
    learnt, found = summary(rationale.folder, "rationale"), summary(matched.folder, "matched")
    epochs = found["steps"] / 3
    assert epochs == int(epochs)
    # two epochs over the rationales, to the nearest epoch over the labels
    difference = abs(epochs * found["supervised_tokens"] - 2 * learnt["supervised_tokens"])
    assert difference <= found["supervised_tokens"] / 2
    assert "6 rows an epoch, 0 steps, and as many more as 2 epochs" in " ".join(matched.result.out.split())


def test_the_map_matches_as_many_epochs_as_stage_1_alone_has() -> None:
    stages = yaml.safe_load((REPOSITORY / "experiments/map.yaml").read_text())["stages"]
    matched = stages["classification_rationale_only_tokens"]
    assert matched["rationale_epochs"] == stages["rationale_long"]["trainer"]["max_epochs"]
    assert matched["trainer"]["max_epochs"] == 0


def test_a_limit_of_steps_is_refused(experiment: Path) -> None:
    result = fit("--config", experiment, "--method", "matched", "--trainer.max_steps", "5", "--dry_run")
    assert result.code == 2
    assert "the stage 'matched': trainer.max_steps would end it before" in result.err


def test_the_estimate_takes_rationales_at_their_longest(experiment: Path, tmp_path: Path) -> None:
    def steps(longest: int) -> int:
        flags = ("--model.writer.max_new_tokens", longest, "--run_root", tmp_path)
        assert main(["check", "--config", str(experiment), "--method", "matched", *map(str, flags)]) == 0
        stages = json.loads((tmp_path / "tiny/matched/seed0/check.json").read_text())["estimate"]["stages"]
        return next(stage["steps"] for stage in stages if stage["name"] == "matched")

    assert steps(40) > 2 * steps(8) > 12
