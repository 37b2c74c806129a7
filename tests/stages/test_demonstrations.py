"""The method `demonstrations` from end to end: a test whose question tells of the labelled videos."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end.test_ddp import assert_same_predictions, on_two
from tests.support.runs import (
    Run,
    digests,
    fit,
    fit_elsewhere,
    rows,
    run_experiment,
    signal_once,
    write_experiment,
)

pytest_plugins = ["tests.support.run_fixtures"]

QUESTION = {"model": {"demonstrations": {"question": "{demonstrations} {question}", "separator": " "}}}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("told")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), QUESTION)
    return run_experiment(config, folder / "runs", method="demonstrations")


def test_it_answers_as_if_the_file_asked_the_whole_question(told, tmp_path):
    texts = rows(told.folder / "write" / "rationales.jsonl")
    by_class = {
        name: [row["text"] for row in texts if row["label"] == name] for name in ("moves left", "turns around quickly")
    }
    demonstrations = [
        f"{text} so {name}" for n in range(3) for name, own in by_class.items() for text in own[n : n + 1]
    ]
    question = " ".join([*demonstrations, "which: {labels}?"])
    asked = fit(
        "--config",
        told.config,
        "--run_root",
        tmp_path,
        "--method",
        "zero_shot",
        "--model.prompts.label_question",
        question,
    )
    assert asked.code == 0, asked.err
    expected = rows(tmp_path / "tiny/zero_shot/seed0/predictions.jsonl")
    found = rows(told.folder / "predictions.jsonl")
    assert [row["log_likelihoods"] for row in found] == [
        pytest.approx(row["log_likelihoods"], abs=1e-5) for row in expected
    ]
    summary = json.loads((told.folder / "demonstrations/stage.json").read_text())["summary"]
    assert summary["demonstrations"] == 6 and summary["question_tokens"] > 20
    assert "with up to 6 labelled videos told of in the question" in " ".join(told.result.out.split())


@pytest.mark.slow
def test_two_processes_answer_as_one(told, tmp_path):
    done = on_two(told.config, tmp_path / "runs", "--method", "demonstrations")
    assert done.code == 0, done.err
    folder = tmp_path / "runs/tiny/demonstrations/seed0"
    assert rows(folder / "write/rationales.jsonl") == rows(told.folder / "write/rationales.jsonl")
    assert_same_predictions(folder, told.folder)
    assert len(rows(folder / "predictions.jsonl")) == 5
    assert done.out.count("6 demonstrations, a question of") == 1, "one process speaks"


@pytest.mark.slow
def test_a_killed_stage_is_done_again(told, tmp_path, clips, family_folder):
    """Its answers are kept nowhere before the last; what was written about the labelled videos is."""
    settings = {**QUESTION, **signal_once(tmp_path, signal.SIGKILL, "test", 0)}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    command = ("--config", config, "--run_root", tmp_path / "runs", "--method", "demonstrations")
    assert fit_elsewhere(*command).code == -signal.SIGKILL
    folder = tmp_path / "runs/tiny/demonstrations/seed0"
    assert not (folder / "demonstrations/stage.json").exists()
    again = fit(*command)
    assert again.code == 0, again.err
    assert "write: done already" in again.out
    assert digests(folder, "predictions.jsonl") == digests(told.folder, "predictions.jsonl")


def test_another_number_of_demonstrations_is_another_test(told):
    fewer = told.again("--method", "demonstrations", "--model.demonstrations.per_class", "1", "--variant", "fewer")
    assert fewer.code == 0, fewer.err
    one, other = (rows(told.root / "tiny" / name / "seed0/predictions.jsonl") for name in ("demonstrations", "fewer"))
    assert one != other
    assert "everything was done already" in told.again("--method", "demonstrations").out


def test_a_question_longer_than_the_model_reads_is_refused_before_it_is_loaded(
    told, clips, family_folder, tmp_path, monkeypatch
):
    from rbft.stages import demonstrations as stage

    def short(*_):
        return type(
            "Config", (), {"get_text_config": lambda self: type("Text", (), {"max_position_embeddings": 20})()}
        )()

    monkeypatch.setattr(stage, "load_config", short)
    refused = told.again("--method", "demonstrations", "--variant", "long")
    assert refused.code != 0
    assert (
        "tiny reads 20" in refused.err.replace("\n", " ")
        or "reads 20. Set model.demonstrations.per_class" in refused.err
    )
