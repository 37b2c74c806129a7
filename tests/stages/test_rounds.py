"""Rounds of writing and training, unlabelled clips and the order of targets, in whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.support.runs import Run, fit, rows, run_experiment, write_clips, write_experiment

from rbft.rationales.store import Rationale
from rbft.stages.rounds import Round, print_rounds, round_metrics, unlabelled_used
from rbft.vlm.processing import ClipProcessor

pytest_plugins = ["tests.support.run_fixtures"]

LABEL_FIRST = {"prompts": {"target_order": "label_then_rationale"}}
ROUNDS: dict[str, Any] = {
    "methods": {
        "rounds": ["write", "rationale", "write_again", "rationale_again", "classification", "test"],
        "label_first": ["write", "rationale_first", "classification", "test_reasoned"],
        "read_late": ["write", "rationale_first", "write_again", "rationale_again", "test"],
    },
    "stages": {
        "rationale": {"trainer": {"max_epochs": 1}},
        "write_again": {"kind": "write"},
        "rationale_again": {"kind": "rationale", "start": "base", "trainer": {"max_epochs": 1}},
        "rationale_first": {"kind": "rationale", "model": LABEL_FIRST, "trainer": {"max_epochs": 1}},
        "test_reasoned": {"kind": "test", "model": {"answering": {"mode": "rationale", "max_new_tokens": 4}}},
    },
}


@pytest.fixture
def experiment(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), ROUNDS)


def inputs(run: Run, stage: str) -> dict[str, Any]:
    return json.loads((run.folder / stage / "stage.json").read_text())["inputs"]


def test_a_second_round_is_written_by_the_improved_model(experiment: Path, tmp_path: Path) -> None:
    run = run_experiment(experiment, tmp_path / "runs", method="rounds")
    first, second = (rows(run.folder / stage / "rationales.jsonl") for stage in ("write", "write_again"))
    assert inputs(run, "write")["weights"] is None
    assert inputs(run, "write_again")["weights"] is not None
    assert all("+rationale:" in row["model"] for row in second) and not any("+" in row["model"] for row in first)
    assert [row["text"] for row in first] != [row["text"] for row in second], "the weights are another model's"
    again = inputs(run, "rationale_again")
    assert again["weights"] is None, "from the base model"
    record = json.loads((run.folder / "write_again" / "stage.json").read_text())
    assert again["rationales"] == record["fingerprint"]
    told = " ".join(run.result.out.split())
    assert "write_again: 6 videos, 1 rationale(s) each, from rationale" in told
    assert "rationale_again: 6 rows an epoch, 3 steps, from the base model" in told
    told = run.result.out.partition("rounds of writing:")[2]
    assert "  write, by the base model: 6 of 6 kept, 0.0% state the right class, label_parse 0.00, leak 1.00" in told
    assert "  write_again, by rationale: 6 of 6 kept, 0.0% state the right class, label_parse 0.00, leak 1.00" in told
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["write_again/rationales"] == metrics["write_again/rationales_kept"] == 6
    assert metrics["write/agreement"] == 0.0 and "train/unlabelled_videos" not in metrics
    # the resolved experiment gives the very same stages
    content = yaml.safe_load((run.folder / "experiment.yaml").read_text())
    assert content["stages"]["rationale_again"]["start"] == "base"


def test_start_is_previous_or_base(experiment: Path) -> None:
    content = yaml.safe_load(experiment.read_text())
    content["stages"]["rationale_again"]["start"] = "scratch"
    experiment.write_text(yaml.safe_dump(content))
    result = fit("--config", experiment, "--method", "rounds", "--dry_run")
    assert result.code == 2
    assert "stages.rationale_again.start: 'scratch' is unknown; it is 'previous'" in result.err


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "label_first",
            "the stage 'test_reasoned': model.answering.mode rationale answers after its own rationale",
        ),
        ("read_late", "the stage 'write_again' reads texts of a model that was taught to state the class first"),
    ],
)
def test_what_does_not_fit_the_taught_order_is_refused_before_a_model_is_loaded(
    experiment: Path, tmp_path: Path, method: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbft.training.module.load_model", None)
    result = fit("--config", experiment, "--run_root", tmp_path / "runs", "--method", method)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    # what was not taught so is not meant
    fine = ("--model.prompts.target_order", "label_then_rationale", "--model.answering.mode", "rationale")
    assert (
        fit("--config", experiment, "--run_root", tmp_path / "runs", "--method", "zero_shot", "--dry_run", *fine).code
        == 0
    )


@pytest.fixture
def unlabelled(tmp_path: Path, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment with three unlabelled clips; all texts but one state a class."""
    root = write_clips(tmp_path / "clips", {"train": (2, 2), "val": (1, 1), "test": (1, 1), "spare": (2, 1)})
    flags = {
        "data": {"unlabelled": "spare", "format": {"class_path": "ClassFolders", "init_args": {"skip": ["spare"]}}}
    }
    decode = ClipProcessor.decode

    def stating(self: ClipProcessor, ids: Any) -> str:
        written = decode(self, ids)
        return written if silent and silent.pop() else f"{written} so moves left"

    # the last of seven videos states nothing
    silent = [True, False, False, False, False, False, False]
    monkeypatch.setattr(ClipProcessor, "decode", stating)
    return write_experiment(tmp_path / "tiny.yaml", root, family_folder("qwen2_5_vl"), flags)


def test_unlabelled_clips_teach_their_own_words_and_no_label(unlabelled: Path, tmp_path: Path) -> None:
    run = run_experiment(unlabelled, tmp_path / "runs", "--trainer.max_epochs", "1")
    written = [Rationale(**row) for row in rows(run.folder / "write" / "rationales.jsonl")]
    own, known = [r for r in written if not r.labelled], [r for r in written if r.labelled]
    assert [r.id for r in known] == sorted(r.id for r in known) and len(known) == 4
    assert [r.video.split("/")[0] for r in own] == ["spare"] * 3
    assert {r.hint for r in known} == {"hint_stripped"} and {r.hint for r in own} == {"blind"}
    assert [(r.label, r.kept, r.reason) for r in own] == [
        ("moves left", True, ""),
        ("moves left", True, ""),
        ("", False, "unstated class"),
    ]
    assert {r.label for r in known} == {"moves left", "turns around quickly"}
    trained = {
        s: json.loads((run.folder / s / "stage.json").read_text())["summary"]["rows"]
        for s in ("rationale", "classification")
    }
    assert trained == {"rationale": 6, "classification": 4}
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["train/unlabelled_videos"] == 2
    assert metrics["write/agreement"] == 0.5, "of the labelled ones alone"
    told = run.result.out
    assert "unlabelled clips used: 2 of 3, under the class their text states" in told
    assert "\nunlabelled clips used: 2\n" in told
    assert "and 3 unlabelled ones" in told
    result = run.again("--trainer.max_epochs", "1", "--method", "rbft", "--seed_everything", "0")
    assert "everything was done already" in result.out, result.err
    next((tmp_path / "clips" / "spare").rglob("*.mp4")).unlink()
    result = run.again("--trainer.max_epochs", "1", "--method", "rbft", "--seed_everything", "0", "--dry_run")
    assert result.code == 0 and "and 2 unlabelled ones" in result.out


def test_rounds_are_told_side_by_side() -> None:
    one = Round("write", None, 8, 4, 0.5, {"leak": 1.0}, None)
    two = Round("again", "rationale", 9, 9, None, {"grounding": 0.25}, 3)
    assert unlabelled_used([one]) is None and unlabelled_used([one, two]) == 3
    assert round_metrics([one, two]) == {
        "write/rationales": 8,
        "write/rationales_kept": 4,
        "write/agreement": 0.5,
        "write/score_leak": 1.0,
        "again/rationales": 9,
        "again/rationales_kept": 9,
        "again/agreement": None,
        "again/score_grounding": 0.25,
        "train/unlabelled_videos": 3,
    }
    console = Console(record=True, width=40)
    print_rounds([one], console)
    assert console.export_text() == ""
    print_rounds([one, two], console)
    assert console.export_text().splitlines() == [
        "unlabelled clips used: 3",
        "rounds of writing:",
        "  write, by the base model: 4 of 8 kept, 50.0% state the right class, leak 1.00",
        "  again, by rationale: 9 of 9 kept, grounding 0.25",
    ]
