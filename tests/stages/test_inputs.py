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
