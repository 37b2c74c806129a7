"""A test that argues for each class, from the command line on: plan, figures, and new videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import Run, rows, run_experiment, write_experiment

from rbft.experiment import read_experiment
from rbft.pipeline.prepare import prepare
from rbft.predict import Classifier
from rbft.terminal import make_console

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture(scope="module")
def argued(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("argued")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"))
    flags = ("--stages.test.model.answering.mode", "argued", "--stages.test.model.answering.max_new_tokens", "6")
    return run_experiment(config, folder / "runs", *flags, method="zero_shot")


def test_each_class_has_a_rationale_and_both_ways_are_reported(argued):
    names = json.loads((argued.folder / "labels.json").read_text())
    metrics = json.loads((argued.folder / "metrics.json").read_text())
    tested = rows(argued.folder / "predictions.jsonl")
    for row in tested:
        assert set(row["answers"]) == {"direct", "argued"} and row["probabilities"] == row["answers"]["argued"]
        texts = row["rationale"].split("\n\n")
        assert len(texts) == 2 and texts[0].endswith(row["predicted"].replace("_", " "))
    hits = [names[row["answers"]["argued"].index(max(row["answers"]["argued"]))] == row["label"] for row in tested]
    assert metrics["test/accuracy_argued"] == metrics["test/accuracy"] == sum(hits) / len(hits)
    assert json.loads((argued.folder / "test/answering.json").read_text())["mode"] == "argued"
    assert "5 videos against 2 labels, a rationale for each of the 2 likeliest" in " ".join(argued.result.out.split())


def test_new_videos_are_answered_as_those_of_the_test(argued, clips):
    tested = rows(argued.folder / "predictions.jsonl")
    found = Classifier(argued.folder).predict([clips / row["video"] for row in tested])
    for answer, row in zip(found, tested, strict=True):
        assert answer.raw == pytest.approx(row["probabilities"], abs=1e-4)
        assert answer.rationale == row["rationale"]


def test_the_argued_question_shapes_an_argued_test_and_nothing_else(argued):
    def fingerprints(*flags: str) -> list[str]:
        args = ["--config", str(argued.config), "--method", "sft", *flags]
        return [entry.fingerprint for entry in prepare(read_experiment(args), make_console())]

    question = ("--model.prompts.argued_question", "argue for {label}")
    mode = ("--stages.test.model.answering.mode", "argued")
    assert fingerprints(*question) == fingerprints()
    (trained, tested), (_, before) = fingerprints(*mode, *question), fingerprints(*mode)
    assert trained == fingerprints()[0] and tested != before


def test_a_swap_has_no_single_rationale_to_keep(argued):
    refused = argued.again(
        *("--method", "zero_shot", "--stages.test.model.answering.mode", "argued"),
        *("--stages.test.model.robustness.swap", "true", "--dry_run"),
    )
    assert refused.code == 2
    assert "under model.answering.mode argued every video has one for each class" in " ".join(refused.err.split())
