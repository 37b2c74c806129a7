"""Ways of answering, objectives and the choice of weights, each in a whole run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.runs import CLASSES, SPLITS, Run, fit, run_experiment

from rbft.evaluation.predictions import read_predictions

pytest_plugins = ["tests.support.run_fixtures"]

TEST_VIDEOS = sum(SPLITS["test"])


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_validation_decides_on_mode_and_strength(finished: Run, tmp_path: Path) -> None:
    flags = ["--model.answering.mode", "validation", "--model.answering.strength", "null"]
    flags += ["--model.answering.max_new_tokens", "5", "--model.answering.strengths", "[0.0, 0.5, 1.0]"]
    run = run_experiment(finished.config, tmp_path, *flags, method="sft")
    told = read(run.folder / "test" / "answering.json")
    assert told["strength"] in (0.0, 0.5, 1.0)
    assert 0 <= told["validation_accuracy"] <= 1
    assert told["rationale_seconds_per_video"] > 0 and 0 < told["tokens_written_per_video"] <= 5
    metrics = read(run.folder / "metrics.json")
    predictions = read_predictions(run.folder / "predictions.jsonl")
    assert len(predictions) == TEST_VIDEOS
    for prediction in predictions:
        assert set(prediction.answers) == {"direct", "rationale", "mixture"}
        assert prediction.probabilities == prediction.answers[told["mode"]]
        assert prediction.rationale is not None
    for mode in ("direct", "rationale", "mixture"):
        right = sum(CLASSES[p.answers[mode].index(max(p.answers[mode]))] == p.label for p in predictions)
        assert metrics[f"test/accuracy_{mode}"] == pytest.approx(right / TEST_VIDEOS)
    assert metrics["test/accuracy"] == metrics[f"test/accuracy_{told['mode']}"]
    assert "answered:" in run.result.out


def test_without_strength_the_tuned_model_is_the_base_model(finished: Run, tmp_path: Path) -> None:
    base = run_experiment(finished.config, tmp_path, method="zero_shot")
    weak = run_experiment(finished.config, tmp_path, "--model.answering.strength", "0", method="sft")
    strong = run_experiment(finished.config, tmp_path / "strong", method="sft")
    scores = [
        [p.log_likelihoods for p in read_predictions(run.folder / "predictions.jsonl")] for run in (base, weak, strong)
    ]
    assert all(found == pytest.approx(expected, abs=1e-4) for found, expected in zip(scores[1], scores[0], strict=True))
    assert any(found != pytest.approx(expected, abs=1e-2) for found, expected in zip(scores[2], scores[0], strict=True))


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.objective", "ClosedSetObjective"],
        ["--model.objective", "ClassificationObjective", "--model.objective.anchor", "0.5"],
        ["--model.selection.weights", "best", "--model.selection.patience", "1"],
        pytest.param(
            ["--model.objective", "ClassificationObjective", "--model.objective.class_weights", "balanced"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["--model.scoring.prior", "blank", "--model.scoring.normalize", "byte"], marks=pytest.mark.slow),
    ],
    ids=["closed set", "anchor", "best", "balanced", "scoring"],
)
def test_options_run_to_the_end(finished: Run, tmp_path: Path, flags: list[str]) -> None:
    run = run_experiment(finished.config, tmp_path, *flags, method="sft")
    assert read(run.folder / "metrics.json")["test/num_videos"] == TEST_VIDEOS
    assert (
        "everything was done already"
        in fit(
            "--config", finished.config, "--run_root", tmp_path, "--method", "sft", "--seed_everything", "0", *flags
        ).out
    )


def test_best_weights_are_those_of_their_epoch(finished: Run, tmp_path: Path) -> None:
    flags = ["--trainer.max_epochs", "3", "--model.selection.weights", "best", "--stage", "classification"]
    run = run_experiment(finished.config, tmp_path, *flags, method="sft")
    summary = read(run.folder / "classification" / "stage.json")["summary"]
    epochs = summary["best_epoch"]
    assert 1 <= epochs <= summary["validations"] == 3
    assert not (run.folder / "classification" / "checkpoints").exists()


@pytest.mark.parametrize("ends", ["--trainer.max_steps 1", "--trainer.check_val_every_n_epoch 5"])
def test_a_training_that_ends_before_it_validates_keeps_its_last_weights(
    finished: Run, tmp_path: Path, ends: str
) -> None:
    flags = ["--stage", "classification", *ends.split()]
    folders = {
        which: run_experiment(
            finished.config, tmp_path / which, *flags, "--model.selection.weights", which, method="sft"
        )
        for which in ("last", "best")
    }
    last, best = (
        load_file(run.folder / "classification/adapter/adapter_model.safetensors") for run in folders.values()
    )
    assert last.keys() == best.keys() and all(torch.equal(value, best[name]) for name, value in last.items())
    assert "its last weights are kept" in folders["best"].result.out
    assert "best_epoch" not in read(folders["best"].folder / "classification" / "stage.json")["summary"]


def test_stage_1_is_chosen_by_the_answers_behind_what_it_writes(finished: Run, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    run = Run(finished.config, root, root / finished.folder.relative_to(finished.root), finished.result)
    best = ("--model.selection.weights", "best", "--stage", "rationale")
    chosen = run.again(*best)
    assert chosen.code == 0, chosen.err
    assert "the best epoch is the one that is right most often after its own rationales" in chosen.out
    stage = read(run.folder / "rationale" / "stage.json")
    assert stage["inputs"]["validation"] == {"rationale_tokens": 6}
    assert stage["summary"]["best_epoch"] >= 1
    assert "rationale: done already" in run.again(*best).out
    for flags, why in (
        (["--model.prompts.target_order", "label_then_rationale"], "target_order label_then_rationale"),
        (["--trainer.strategy", "fsdp2"], "fsdp2 writes none while it trains"),
        (
            ["--model.prompts.rationale_question", "which?", "--model.prompts.label_question", "which?"],
            "label question",
        ),
    ):
        refused = run.again(*best, *flags)
        assert refused.code == 2
        assert re.search(rf"the stage 'rationale': model\.selection\.weights best .*{why}.* to last", refused.err)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.answering.strength", "null"], r"lets validation videos decide \(model\.answering\)"),
        (["--model.selection.weights", "best"], r"keeps the weights that validate best \(model\.selection\)"),
    ],
)
def test_what_validation_decides_needs_validation_videos(
    finished: Run, clips: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    for split in ("train", "test"):
        shutil.copytree(clips / split, tmp_path / "clips" / split)
    flags = [*flags, "--data.root", str(tmp_path / "clips"), "--data.val_fraction", "0"]
    result = fit("--config", finished.config, "--run_root", tmp_path / "runs", "--method", "sft", *flags)
    assert result.code == 1
    assert re.search(message, result.err), result.err


def test_controls_change_what_is_trained_and_what_is_seen(finished: Run, tmp_path: Path) -> None:
    """On a copy of a finished run: only what depends on a control is run again."""
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    run = Run(finished.config, root, root / finished.folder.relative_to(finished.root), finished.result)
    before = read_predictions(run.folder / "predictions.jsonl")
    blank = run.again("--data.clip_control", "blank", "--stage", "test")
    assert blank.code == 1 and "data.clip_control" in blank.err, "weights of clips that were seen are another run's"
    config = tmp_path / "controls.yaml"
    text = run.config.read_text()
    config.write_text(text.replace("  test: {}\n", "  test: {data: {clip_control: blank}}\n"))
    assert config.read_text() != text
    result = fit("--config", config, "--experiment", run.config.stem, "--run_root", root)
    assert result.code == 0, result.err
    assert "classification: done already" in result.out
    after = read_predictions(run.folder / "predictions.jsonl")
    assert [p.log_likelihoods for p in after] != [p.log_likelihoods for p in before]
    # grey is grey: clips of one size cannot be told apart
    assert len({tuple(round(x, 3) for x in p.log_likelihoods) for p in after}) == 1
    result = run.again("--model.control", "NoDescription")
    assert result.code == 0, result.err
    assert "write: done already" in result.out and "trained on a control: NoDescription" in result.out
