"""Adapters in the vision tower and the projector, through all stages, then predicted with and exported."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.support.runs import run_experiment, write_clips, write_experiment

from rbft.__main__ import main
from rbft.evaluation.predictions import read_predictions
from rbft.predict.classifier import Classifier

PARTS = ("visual.blocks.0.attn.qkv", "visual.blocks.1.mlp.gate_proj", "visual.merger.mlp.0", "q_proj")


@pytest.mark.slow
def test_adapters_in_the_vision_tower_are_trained_used_and_exported(tmp_path, family_folder):
    clips = write_clips(tmp_path / "clips", {"train": (2, 2), "val": (1, 1), "test": (2, 2)})
    targets = r".*\.(q_proj|v_proj)|.*visual\.(.*\.)?(qkv|gate_proj|merger\.mlp\.0)"
    tuning = {"class_path": "LoRA", "init_args": {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": targets}}
    model = family_folder("qwen2_5_vl")
    config = write_experiment(tmp_path / "vision.yaml", clips, model, {"model": {"tuning": tuning}})
    run = run_experiment(config, tmp_path / "runs")
    weights = {
        stage: load_file(run.folder / stage / "adapter" / "adapter_model.safetensors")
        for stage in ("rationale", "classification")
    }
    for stage, adapter in weights.items():
        moved = [name for name, value in adapter.items() if "lora_B" in name and value.any()]
        for part in PARTS:
            assert any(part in name for name in moved), f"{part} of {stage}"
    first, second = weights["rationale"], weights["classification"]
    assert all(not torch.equal(first[name], second[name]) for name in first if "visual" in name and "lora_B" in name)
    tested = read_predictions(run.folder / "predictions.jsonl")
    answers = Classifier(run.folder).predict([clips / prediction.video for prediction in tested])
    for answer, prediction in zip(answers, tested, strict=True):
        assert answer.raw == pytest.approx(prediction.probabilities, abs=1e-6)
    for form in ("merged", "adapter"):
        # the export itself compares what is loaded again, and what its own program answers, with the run
        assert main(["export", "--run", str(run.folder), "--to", str(tmp_path / form), "--form", form]) == 0
        assert json.loads((tmp_path / form / "rbft.json").read_text())["parity"]["reloaded"] <= 1e-3
