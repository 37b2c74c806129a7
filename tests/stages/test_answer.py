"""Training clips are answered after own rationales, and the direct answer learns it: whole runs, interrupted or not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import LEFT, RIGHT, Run, fit, fit_elsewhere, rows, run_experiment, signal_once, write_experiment

from rbft.data.records import VideoRecord
from rbft.errors import DataError, StageError
from rbft.experiment import lay_over
from rbft.rationales.soft_labels import SoftLabelStore, read_soft_labels

pytest_plugins = ["tests.support.run_fixtures"]

DISTIL: dict[str, Any] = {
    "methods": {"distil": ["answer", "distil", "test"]},
    "data": {"shots": 2},
    "stages": {
        "answer": {
            "views": 2,
            "data": {"unlabelled": "unused"},
            "model": {"answering": {"samples": 2, "temperature": 1.0, "max_new_tokens": 4}},
        },
        "distil": {"trainer": {"max_epochs": 1}},
    },
}
ANSWERS = "answer/soft_labels.jsonl"


@pytest.fixture(scope="module")
def model(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory, clips: Path, model: Path) -> Run:
    folder = tmp_path_factory.mktemp("distilled")
    config = write_experiment(folder / "tiny.yaml", clips, model, DISTIL)
    return run_experiment(config, folder / "runs", method="distil")


def test_every_view_of_labelled_and_unlabelled_clips_is_answered(distilled: Run) -> None:
    answers = rows(distilled.folder / ANSWERS)
    assert [row["view"] for row in answers] == [0, 1] * 6
    assert [row["label"] for row in answers] == [LEFT] * 4 + [RIGHT] * 4 + [""] * 4
    for row in answers:
        assert row["classes"] == [LEFT, RIGHT] and sum(row["probabilities"]) == pytest.approx(1)
        assert (row["frames_seed"] is None) == (row["view"] == 0)
        assert len(row["texts"]) == 2
    first, second = answers[:2]
    assert first["probabilities"] != second["probabilities"], "other frames and other texts"
    said = " ".join(distilled.result.out.split())
    assert "answer: 4 videos and 2 unlabelled, 2 clip(s) each, answered after 2 rationale(s)" in said
    assert "distil: 12 rows an epoch, 6 steps" in said
    assert "12 clips of 6 videos answered" in said and "of 8 labelled ones" in said


@pytest.mark.slow
def test_a_killed_stage_goes_on_where_it_stopped(tmp_path: Path, clips: Path, model: Path, distilled: Run) -> None:
    changes = lay_over(DISTIL, signal_once(tmp_path, signal.SIGKILL, "predict", 1))
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, changes)
    flags = ("--config", config, "--run_root", tmp_path / "runs", "--method", "distil", "--stage", "answer")
    assert fit_elsewhere(*flags).code == -signal.SIGKILL
    part = tmp_path / "runs" / "tiny" / "distil" / "seed0" / "answer" / "parts" / "rank0.jsonl"
    before = part.read_bytes()
    assert 0 < len(rows(part)) < 12
    assert fit(*flags).code == 0
    assert part.read_bytes().startswith(before)
    assert rows(part.parents[1] / "soft_labels.jsonl") == rows(distilled.folder / ANSWERS)


@pytest.mark.slow
def test_two_processes_answer_and_learn_the_same(tmp_path: Path, clips: Path, model: Path, distilled: Run) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, DISTIL)
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accumulate_grad_batches", "1")
    done = fit_elsewhere("--config", config, "--run_root", tmp_path / "runs", "--method", "distil", *two)
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "tiny" / "distil" / "seed0"
    answers = rows(folder / ANSWERS)
    assert [row["texts"] for row in answers] == [row["texts"] for row in rows(distilled.folder / ANSWERS)]
    assert len(rows(folder / "predictions.jsonl")) == 5


def test_wrong_settings_are_refused_before_a_model_is_loaded(distilled: Run, tmp_path: Path) -> None:
    flags = ("--config", distilled.config, "--run_root", tmp_path, "--method", "distil")
    for more, said in (
        (("--stages.answer.model.answering.mode", "direct"), "set it to rationale"),
        (("--stages.answer.model.answering.strength", "null"), "state a number"),
        (("--stages.answer.views", "0"), "stages.answer.views: 0"),
        (("--stages.distil.views", "2"), "only stages of kind 'answer'"),
        (("--methods.distil", "[distil, test]"), "put a stage of kind 'answer' before it"),
    ):
        result = fit(*flags, *more)
        assert result.code != 0 and said in " ".join(result.err.split()), (more, result.err)


def test_a_damaged_file_is_named_with_its_line(distilled: Run, tmp_path: Path) -> None:
    text = (distilled.folder / ANSWERS).read_text()
    path = tmp_path / "soft_labels.jsonl"
    for damage in (
        text.replace('"view": 0', '"view": "a"', 1),
        text.replace('"probabilities": [0', '"probabilities": [2', 1),
    ):
        path.write_text(damage)
        with pytest.raises(DataError, match=r"soft_labels.jsonl, line 1"):
            read_soft_labels(path)
    with pytest.raises(StageError, match="does not exist"):
        read_soft_labels(tmp_path / "none.jsonl")
    with pytest.raises(StageError, match="1 answers are missing, first about 'a'"):
        SoftLabelStore(tmp_path).collect([VideoRecord("a", "a.mp4", "x")], 1)
