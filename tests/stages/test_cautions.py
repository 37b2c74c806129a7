"""Worthless work does not pass in silence: what is said, and that nothing is said of work that is worth something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.finished_runs import predictions, write_run
from tests.support.runs import fit, write_clips, write_experiment

from rbft.__main__ import main
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.predict.run_settings import read_run
from rbft.runs.run_folder import RunFolder
from rbft.stages.cautions import answer_cautions, built_in_cautions, rationale_cautions, run_cautions


def answered(*pairs: tuple[str, str | None]) -> list[Prediction]:
    return [Prediction(str(number), f"{number}.mp4", label, said, (), ()) for number, (label, said) in enumerate(pairs)]


def test_one_answer_for_every_video():
    (caution,) = answer_cautions(answered(("a", "a"), ("b", "a"), ("a", None)))
    assert "every test video was answered 'a'" in caution
    assert "model.vlm" in caution


def test_no_better_than_one_fixed_answer():
    (caution,) = answer_cautions(answered(("a", "a"), ("a", "b"), ("b", "b")))
    assert "66.7% of the test videos" in caution
    assert "always answering 'a' would be right for 66.7%" in caution
    (caution,) = answer_cautions(answered(("a", "b"), ("b", "a"), ("b", None)))
    assert "0.0% of the test videos" in caution


@pytest.mark.parametrize(
    "pairs",
    [[("a", "a"), ("b", "b")], [("a", "a")], [("a", "b")], [("a", "a"), ("a", "a"), ("b", "b"), ("b", "a")], []],
)
def test_nothing_is_said_of_a_test_that_shows_something(pairs):
    assert answer_cautions(answered(*pairs)) == []


def test_rationales_that_name_no_class():
    summary = {"labelled_rationales": 24, "kept": 24, "state_a_class": 0}
    (caution,) = rationale_cautions(summary)
    assert "none of the 24 rationales names a class" in caution
    assert "--method sft" in caution
    assert rationale_cautions(summary | {"state_a_class": 1}) == []
    assert rationale_cautions(summary | {"kept": 0}) == []


def test_the_built_in_model_and_its_own_world():
    assert built_in_cautions("builtin/tiny", {"class_path": "rbft.data.formats.ShapesWorld"}) == []
    assert built_in_cautions("builtin/tiny", "ShapesWorld") == []
    assert built_in_cautions("Qwen/Qwen3-VL-2B-Instruct", "Table") == []
    (caution,) = built_in_cautions("builtin/tiny", {"class_path": "rbft.data.formats.Table"})
    assert "moving shapes" in caution


def test_of_a_run_folder(tmp_path):
    own = {"data": {"format": {"class_path": "ShapesWorld"}}}
    run = write_run(tmp_path, "sft", right=20, changes=own)
    write_predictions(run / "predictions.jsonl", predictions(20))
    assert run_cautions(RunFolder(run)) == []
    write_predictions(run / "predictions.jsonl", predictions(3))
    assert len(run_cautions(RunFolder(run))) == 1


@pytest.fixture(scope="module")
def own_videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the built-in model on clips of noise, and what it said."""
    folder = tmp_path_factory.mktemp("own")
    clips = write_clips(folder / "clips", {"train": (2, 2), "test": (2, 2)})
    stages = {"rationale": {"trainer": {"max_epochs": 1}}}
    changes = {"model": {"prompts": {"conclusion": "zyx {label}"}}, "stages": stages}
    config = write_experiment(folder / "own.yaml", clips, Path("builtin/tiny"), changes)
    result = fit("--config", config, "--run_root", folder / "runs", "--data.cache_dir", folder / "cache")
    assert result.code == 0, result.err
    return folder / "runs/own/rbft/seed0", result.out


def test_fit_and_its_page_say_so(own_videos):
    run, said = own_videos
    assert "none of the 2 rationales names a class" in said
    assert said.count("knows nothing but its own moving shapes") == 2, "in the plan and at the end"
    page = (run / "report.html").read_text()
    assert "none of the 2 rationales names a class" in page
    assert "knows nothing but its own moving shapes" in page
    assert "top-5" not in page, "there are two classes"
    assert json.loads((run / "metrics.json").read_text())["test/top5_accuracy"] == 1.0


def test_predict_says_so(own_videos, capsys):
    run, _ = own_videos
    assert main(["predict", "--run", str(run), str(run.parents[3] / "clips/test")]) == 0
    out = capsys.readouterr().out
    assert "none of the 2 rationales names a class" in out
    assert "knows nothing but its own moving shapes" in out


def test_a_run_of_the_built_in_world_warns_of_other_videos_only(tmp_path, own_videos):
    run, _ = own_videos
    recorded = read_run(run)
    assert recorded.data_root == (run.parents[3] / "clips").resolve()
    assert recorded.cautions(own_videos=True) == recorded.cautions(own_videos=False)
