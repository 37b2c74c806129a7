"""The method `caption_probe` from end to end: the model describes, and a text classifier is all there is."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.end_to_end.test_ddp import assert_same_predictions, on_two
from tests.support.runs import Run, digests, fit, rows, run_experiment, signal_once, write_experiment

from rbft.__main__ import main
from rbft.evaluation.text_probe import fit_text_probe
from rbft.rationales.checks.wording import words

pytest_plugins = ["tests.support.run_fixtures"]

SETTINGS = {"model": {"writer": {"samples": 2, "temperature": 1.0, "max_new_tokens": 6}}}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("described")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), SETTINGS)
    return run_experiment(config, folder / "runs", method="caption_probe")


def test_it_needs_no_stage_in_the_file_and_leaves_what_a_test_leaves(described):
    record = json.loads((described.folder / "caption_probe" / "stage.json").read_text())
    assert {"predictions.jsonl", "metrics.json", "validation.jsonl", "rationales.jsonl"} <= record["outputs"].keys()
    assert (record["summary"]["rows"], record["summary"]["descriptions"]) == (8, 26)
    assert (described.folder / "report.html").is_file()
    assert not (described.folder / "caption_probe" / "adapter").exists(), "nothing of the model is trained"
    assert "2 description(s) each of 13 videos, a text classifier fitted to 8 of them, 5 tested" in " ".join(
        described.result.out.split()
    )


def test_nothing_is_told_about_any_video(described):
    written = rows(described.folder / "caption_probe" / "rationales.jsonl")
    assert {row["hint"] for row in written} == {"blind"}


def test_its_answers_are_those_of_a_classifier_of_all_labelled_clips(described):
    texts: dict[str, list[str]] = {}
    for row in rows(described.folder / "caption_probe" / "rationales.jsonl"):
        texts.setdefault(row["id"], []).append(row["written"])
    record = json.loads((described.folder / "caption_probe" / "stage.json").read_text())["summary"]
    labelled = [name for name in texts if not name.startswith("test")]
    labels = np.array([int("turns" in name) for name in labelled])
    fitted = fit_text_probe([texts[name] for name in labelled], labels, 2, record["l2"], words)
    for row in rows(described.folder / "predictions.jsonl"):
        assert row["probabilities"] == pytest.approx(fitted.probabilities([texts[row["id"]]])[0].tolist(), abs=1e-9)
    assert len(rows(described.folder / "caption_probe" / "validation.jsonl")) == 8


def test_an_interrupted_stage_goes_on(described, tmp_path, clips, family_folder):
    settings = {**SETTINGS, **signal_once(tmp_path, signal.SIGTERM, "predict", 1)}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    assert fit("--config", config, "--run_root", tmp_path / "runs", "--method", "caption_probe").code == 143
    folder = tmp_path / "runs/tiny/caption_probe/seed0"
    before = len(rows(folder / "caption_probe/parts/rank0.jsonl"))
    assert 0 < before < 26
    again = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "caption_probe")
    assert again.code == 0, again.err
    assert digests(folder, "predictions.jsonl") == digests(described.folder, "predictions.jsonl")
    third = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "caption_probe")
    assert "everything was done already" in third.out


@pytest.mark.slow
def test_two_processes_describe_and_answer_as_one(described, tmp_path):
    done = on_two(described.config, tmp_path / "runs", "--method", "caption_probe")
    assert done.code == 0, done.err
    folder = tmp_path / "runs/tiny/caption_probe/seed0"
    written = rows(folder / "caption_probe/rationales.jsonl")
    assert written == rows(described.folder / "caption_probe/rationales.jsonl")
    parts = [rows(path) for path in sorted((folder / "caption_probe/parts").iterdir())]
    assert len(parts) == 2 and all(parts) and sum(map(len, parts)) == 26, "both wrote, and no video twice"
    assert_same_predictions(folder, described.folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in described.folder.iterdir())
    assert done.out.count("text classifier on 2 description(s)") == 1, "one process speaks"


def test_it_cannot_be_predicted_with(described, capsys, clips):
    assert main(["predict", "--run", str(described.folder), str(clips)]) == 1
    assert "a control that nothing is predicted with" in capsys.readouterr().err
