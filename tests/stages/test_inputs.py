"""What a stage's result depends on: a setting that came later changes nothing for stages that do not use it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rbft.data.datamodule import VideoDataModule
from rbft.experiment import Stage
from rbft.pipeline.stage_cli import StageCLI
from rbft.stages.inputs import stage_inputs


@pytest.fixture
def tuning_of(tmp_path, monkeypatch):
    """The tuning among the inputs of a training stage, from the one in its file."""
    monkeypatch.setattr(VideoDataModule, "fingerprint", lambda self, *roles: "videos")

    def make(tuning: dict[str, Any] | None) -> Any:
        content = {"data": {"root": "/nowhere", "num_frames": 4}, "model": {"tuning": tuning}}
        (tmp_path / "a.yaml").write_text(json.dumps(content))
        cli = StageCLI(["--config", str(tmp_path / "a.yaml")])
        stage = Stage("classification", "classification", {}, None, None)
        return stage_inputs(stage, cli.model, cli.datamodule, cli.resolved(), {})["model"]["tuning"]

    return make


def test_stages_done_before_layers_could_be_chosen_stay_done(tuning_of):
    assert tuning_of(None) is None
    whole = {"language": "train", "projector": "frozen", "vision": "frozen"}
    assert tuning_of({"class_path": "FullFineTuning"})["init_args"] == whole
    chosen = tuning_of({"class_path": "FullFineTuning", "init_args": {"layers": 2}})
    assert chosen["init_args"] == whole | {"layers": 2}
    fraction = tuning_of({"class_path": "LoRA", "init_args": {"layers": 0.5}})
    assert fraction["init_args"]["layers"] == 0.5
    assert "layers" not in tuning_of({"class_path": "LoRA"})["init_args"]


@pytest.fixture
def inputs_of(tmp_path, monkeypatch):
    """The inputs of a training stage, from the trainer in its file and the weights that are chosen."""
    monkeypatch.setattr(VideoDataModule, "fingerprint", lambda self, *roles: "videos")

    def make(trainer: dict[str, Any], weights: str = "last", kind: Any = "classification") -> dict[str, Any]:
        model = {"selection": {"weights": weights}}
        content = {"data": {"root": "/nowhere", "num_frames": 4}, "model": model, "trainer": trainer}
        (tmp_path / "a.yaml").write_text(json.dumps(content))
        cli = StageCLI(["--config", str(tmp_path / "a.yaml")])
        return stage_inputs(Stage(kind, kind, {}, None, None), cli.model, cli.datamodule, cli.resolved(), {})

    return make


STOP = {"class_path": "EarlyStopping", "init_args": {"monitor": "train/loss"}}
LOOK = {"class_path": "LearningRateMonitor"}


@pytest.mark.parametrize(
    "trainer",
    [{"callbacks": [STOP]}, {"callbacks": [LOOK, STOP]}, {"max_time": "00:01:00:00"}, {"min_epochs": 3}],
)
def test_what_ends_a_training_early_or_late_is_an_input_of_it(inputs_of, trainer):
    assert inputs_of(trainer) != inputs_of({})
    assert inputs_of(trainer, kind="write") == inputs_of({}, kind="write")


def test_what_only_looks_on_is_none(inputs_of):
    assert inputs_of({"callbacks": [LOOK]}) == inputs_of({"callbacks": []}) == inputs_of({})
    assert set(inputs_of({})["trainer"]) == {
        "precision",
        "max_epochs",
        "max_steps",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "limit_train_batches",
    }


@pytest.mark.parametrize("trainer", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}])
def test_when_it_is_validated_is_an_input_where_that_chooses(inputs_of, trainer):
    assert inputs_of(trainer, "best") != inputs_of({}, "best")
    assert inputs_of(trainer) == inputs_of({})
