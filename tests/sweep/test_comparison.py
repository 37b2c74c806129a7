"""Which runs a comparison makes: methods that the experiment has stages for, draw by draw, within the budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rbft.errors import ConfigError
from rbft.sweep.comparison import make_comparison

STAGES = {"write": {}, "rationale": {}, "classification": {}, "test": {}}


@pytest.fixture
def args(tmp_path: Path) -> list[str]:
    methods = {"look": ["blank"], "both": ["write", "rationale", "classification", "blank"], "words": ["write", "test"]}
    content = {"stages": {**STAGES, "blank": {"kind": "test"}}, "methods": methods}
    (tmp_path / "falls.yaml").write_text(yaml.safe_dump(content))
    return ["--config", str(tmp_path / "falls.yaml"), "--run_root", str(tmp_path / "runs")]


def test_usual_methods_and_those_of_the_file_that_train_nothing(args, tmp_path):
    found = make_comparison(args, {})
    assert found.methods == ("sft", "rbft", "zero_shot", "probe", "caption_probe", "look", "words", "rationale_only")
    assert found.unusable == ("probe", "caption_probe")
    assert (found.draws, len(found.sweep.runs)) == (5, 40)
    assert [run.id for run in found.sweep.runs[:2]] == ["sft-draw0-seed0", "rbft-draw0-seed0"], "draw by draw"
    last = found.sweep.runs[-1]
    assert last.folder == tmp_path / "runs" / "falls" / "rationale_only-draw4" / "seed4"
    assert found.sweep.folder == tmp_path / "runs" / "sweeps" / "compare-falls"
    assert found.sweep.baseline == {"method": "sft"}


@pytest.mark.parametrize("where", ["file", "layer", "flag"])
def test_a_video_encoder_that_is_named_is_compared(args, where):
    path = Path(args[1])
    content, model = yaml.safe_load(path.read_text()), {"model": {"encoder": {"folder": "encoders/videomae-base"}}}
    if where == "file":
        path.write_text(yaml.safe_dump(content | model))
    elif where == "layer":
        content["stages"]["encoder_probe"] = model
        path.write_text(yaml.safe_dump(content))
    else:
        args = [*args, "--model.encoder.folder", "encoders/videomae-base"]
    found = make_comparison(args, {}, draws=1)
    assert found.methods[:6] == ("sft", "rbft", "zero_shot", "probe", "caption_probe", "encoder_probe")
    assert found.unusable == ("probe", "caption_probe", "encoder_probe")


def test_a_file_without_stages_of_some_methods(tmp_path):
    (tmp_path / "short.yaml").write_text("stages: {classification: {}, test: {}}")
    assert make_comparison(["--config", str(tmp_path / "short.yaml")], {}).methods == (
        "sft",
        "zero_shot",
        "probe",
        "caption_probe",
    )


@pytest.mark.parametrize(
    ("runs", "draws", "methods", "count"),
    [
        (4, None, ("sft", "rbft"), 2),
        (6, None, ("sft", "rbft"), 3),
        (9, None, ("sft", "rbft", "zero_shot"), 3),
        (50, None, None, 6),
        (50, 2, None, 2),
        (8, 1, None, 1),
    ],
)
def test_a_budget_of_runs_cuts_methods_before_draws(args, runs, draws, methods, count):
    found = make_comparison(args, {}, runs=runs, draws=draws)
    assert found.draws == count and len(found.sweep.runs) <= runs
    assert methods is None or found.methods == methods
    assert len(found.methods) + len(found.left_out) == 8


def test_methods_that_are_asked_for(args):
    found = make_comparison(args, {}, methods=["both", "sft"], draws=1)
    assert found.methods == ("sft", "both")
    assert make_comparison(args, {}, methods=["both", "sft"], baseline="both", draws=1).methods == ("both", "sft")


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ([], {"methods": ["rbtf", "sft"]}, "did you mean 'rbft'"),
        ([], {"methods": ["sft"]}, "nothing to compare sft with"),
        ([], {"baseline": "both"}, "--baseline both: it is not compared"),
        ([], {"runs": 1}, "--runs 1: two methods need"),
        ([], {"draws": 0}, "--draws 0"),
        (["--method", "sft"], {}, "say --methods"),
        (["--data.draw=3"], {}, "say --draws N"),
        (["--restart"], {}, "--restart: it is of one run"),
    ],
)
def test_what_cannot_be_compared(args, more, options, message):
    with pytest.raises(ConfigError, match=message):
        make_comparison([*args, *more], {}, **options)


def test_a_search_gives_methods_that_train_learning_rates_around_the_files_own(args):
    found = make_comparison(args, {}, methods=["sft", "zero_shot"], draws=2, search=4)
    assert found.each == {"sft": 4, "zero_shot": 1} and found.sweep.choose == ("model.optim.lr",)
    rates = [run.point["model.optim.lr"] for run in found.sweep.runs if "model.optim.lr" in run.point]
    assert (min(rates), max(rates), len(rates)) == (1e-5, 1e-3, 22)
    assert [run.id for run in found.sweep.runs if run.point["method"] == "zero_shot"] == [
        "zero_shot-draw0-seed0",
        "zero_shot-draw1-seed1",
    ]
    said = make_comparison([*args, "--model.optim.lr", "1e-3"], {}, methods=["sft", "zero_shot"], draws=1, search=4)
    assert {run.point.get("model.optim.lr") for run in said.sweep.runs} >= {1e-4, 1e-3, 1e-2}
    assert make_comparison(args, {}, methods=["sft", "rbft"], runs=25, search=4).draws == 3
    with pytest.raises(ConfigError, match="one draw of sft, rbft takes 8 runs"):
        make_comparison(args, {}, methods=["sft", "rbft"], runs=7, search=4)
