"""Choosing by cross-fitting: out-of-fold answers about all labelled videos, then one fit on all of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.end_to_end.test_ddp import PROPORTIONAL, assert_same_predictions, on_two
from tests.support.runs import Run, digests, fit, rows, run_experiment, signal_once, write_experiment

from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.experiment import lay_over
from rbft.predict import Classifier
from rbft.stages import crossfit

pytest_plugins = ["tests.support.run_fixtures"]

CROSSFIT = {
    "methods": {"crossed": ["write", "rationale", "test"]},
    "stages": {
        "rationale": {"trainer": {"max_epochs": 1}},
        "test": {
            "model": {"answering": {"mode": "crossfit", "strength": None, "strengths": [0.5, 1.0], "max_new_tokens": 6}}
        },
    },
}


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("crossed")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), CROSSFIT)
    return run_experiment(config, folder / "runs", method="crossed")


def test_every_labelled_video_is_answered_by_weights_that_have_not_seen_it(crossed):
    folds = sorted((crossed.folder / "test/folds").iterdir())
    assert len(folds) == 4  # four labelled videos a class, validation videos included
    answered = []
    for fold in folds:
        held = json.loads((fold / "rationale/done.json").read_text())["held"]
        learnt = {row["id"] for row in rows(fold / "write/rationales.jsonl")}
        assert len(held) == 2 and len(learnt) == 6 and not learnt & set(held)
        for strength in ("0.5", "1"):
            assert sorted(row["id"] for row in rows(fold / f"predictions-{strength}.jsonl")) == held
        answered += held
        assert not (fold / "rationale/checkpoints").exists()
    validated = rows(crossed.folder / "test/validation.jsonl")
    assert sorted(row["id"] for row in validated) == sorted(answered) and len(answered) == 8
    adapters = {path.read_bytes() for path in crossed.folder.glob("**/adapter_model.safetensors")}
    assert len(adapters) == 5, "each fold, and the run, has weights of its own"


def test_the_run_itself_learns_from_all_labelled_videos(crossed):
    metrics = json.loads((crossed.folder / "metrics.json").read_text())
    assert (metrics["labels/videos"], metrics["labels/choosing"], metrics["labels/calibrating"]) == (8, 0, 0)
    splits = json.loads((crossed.folder / "splits.json").read_text())
    assert len(splits["train"]) == 8 and splits["val"] == []
    assert "rationale 4 more times, without a part of the 8 labelled videos each" in " ".join(
        crossed.result.out.split()
    )


def test_what_was_chosen_is_what_the_out_of_fold_answers_say(crossed):
    choice = json.loads((crossed.folder / "test/answering.json").read_text())
    validated = rows(crossed.folder / "test/validation.jsonl")
    right = sum(row["predicted"] == row["label"] for row in validated) / 8
    assert choice["validation_accuracy"] == right
    for strength in ("0.5", "1"):
        pooled = [
            row for fold in range(4) for row in rows(crossed.folder / f"test/folds/{fold}/predictions-{strength}.jsonl")
        ]
        for mode in ("direct", "rationale"):
            names = json.loads((crossed.folder / "labels.json").read_text())
            hits = [names[row["answers"][mode].index(max(row["answers"][mode]))] == row["label"] for row in pooled]
            assert sum(hits) / 8 <= right


@pytest.mark.slow
def test_an_interrupted_one_goes_on_where_it_stopped(crossed, tmp_path, clips, family_folder):
    settings = {**CROSSFIT, **signal_once(tmp_path, signal.SIGTERM, "train", 22)}  # in the third fold
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    command = ("--config", config, "--run_root", tmp_path / "runs", "--method", "crossed")
    assert fit(*command).code == 143
    folder = tmp_path / "runs/tiny/crossed/seed0"
    done = sorted(path.parent.parent.name for path in folder.glob("test/folds/*/rationale/done.json"))
    assert done and len(done) < 4
    again = fit(*command)
    assert again.code == 0, again.err
    for name in ("predictions.jsonl", "test/validation.jsonl"):
        assert digests(folder, name) == digests(crossed.folder, name)
    assert "everything was done already" in fit(*command).out


@pytest.mark.slow
def test_two_processes_choose_and_answer_as_one(tmp_path, clips, family_folder):
    """Each fold's weights are those of one process, so what they say of the held-back videos is, too."""
    settings = lay_over(CROSSFIT, PROPORTIONAL)
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    one = run_experiment(config, tmp_path / "one", method="crossed")
    done = on_two(config, tmp_path / "two", "--method", "crossed", "--data.batch_size", "2")
    assert done.code == 0, done.err
    folder = tmp_path / "two/tiny/crossed/seed0"
    for fold in range(4):
        for strength in ("0.5", "1"):
            name = f"test/folds/{fold}/predictions-{strength}.jsonl"
            mine, theirs = rows(folder / name), rows(one.folder / name)
            assert [row["id"] for row in mine] == [row["id"] for row in theirs]
            for row, reference in zip(mine, theirs, strict=True):
                assert row["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-4)
    assert_same_predictions(folder, one.folder)
    assert done.out.count("fold 4 of 4") == 1, "one process speaks"


def test_a_fold_trains_without_the_videos_that_are_held_back():
    """Where labels are learned there is no list of rationales that lacks them."""
    videos = tuple(VideoRecord(id=str(i), path=f"{i}.mp4", label="ab"[i % 2]) for i in range(4))
    data = SimpleNamespace(splits=Splits(videos, (), (), ()))
    other = crossfit._without(data, {"1", "2"})
    assert [record.id for record in other.splits.train] == ["0", "3"]
    assert data.splits.train == videos, "the run itself keeps them"


def test_without_training_it_only_chooses(crossed):
    zero = crossed.again("--method", "zero_shot")
    assert zero.code == 0, zero.err
    assert len(list((crossed.root / "tiny/zero_shot/seed0/test/folds").iterdir())) == 1


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("gated")
    answering = {"mode": "gated", "choose_on": "crossfit", "most_reasoned": 0.5, "max_new_tokens": 6}
    settings = {"stages": {"test": {"model": {"answering": answering}}}}
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    return run_experiment(config, folder / "runs", method="sft")


def test_out_of_fold_answers_choose_the_gate_and_fit_the_temperature(gated):
    choice = json.loads((gated.folder / "test/answering.json").read_text())
    validated = rows(gated.folder / "test/validation.jsonl")
    unsure = [row for row in validated if max(row["answers"]["direct"]) < choice["gate"]]
    assert choice["mode"] == "gated" and choice["validation_reasoned"] == len(unsure) / 8 <= 0.5
    assert all(row["probabilities"] == row["answers"]["rationale"] for row in unsure)
    assert choice["validation_accuracy"] == sum(row["predicted"] == row["label"] for row in validated) / 8
    for least in (0.0, choice["gate"]):
        taken = [("rationale" if max(row["answers"]["direct"]) < least else "direct", row) for row in validated]
        hits = [labels_of(gated)[likeliest(row["answers"][mode])] == row["label"] for mode, row in taken]
        assert sum(hits) / 8 <= choice["validation_accuracy"]
    tested = rows(gated.folder / "predictions.jsonl")
    written = [row for row in tested if row["rationale"]]
    assert choice["share_reasoned"] == len(written) / len(tested)
    assert all((max(row["answers"]["direct"]) < choice["gate"]) == bool(row["rationale"]) for row in tested)
    metrics = json.loads((gated.folder / "metrics.json").read_text())
    assert metrics["test/share_reasoned"] == choice["share_reasoned"]
    page = " ".join((gated.folder / "report.html").read_text().split())
    assert f"A rationale was written about {choice['share_reasoned']:.1%} of the test videos" in page
    calibration = json.loads((gated.folder / "test/calibration.json").read_text())
    assert calibration["temperature"] and calibration["validation_videos"] == 8
    said = " ".join(gated.result.out.split())
    assert "a gate that labelled videos choose (at most 50% of them), chosen by cross-fitting" in said
    assert f"(gate {choice['gate']:.3g}, a rationale for {choice['share_reasoned']:.1%})" in said
    assert "right on all labelled videos out of fold (a rationale for" in said


def test_the_chosen_gate_is_what_new_videos_are_answered_with(gated, clips):
    tested = rows(gated.folder / "predictions.jsonl")
    found = Classifier(gated.folder).predict([clips / row["video"] for row in tested])
    assert [answer.error for answer in found] == [None] * len(tested)
    assert [bool(answer.rationale) for answer in found] == [bool(row["rationale"]) for row in tested]
    for answer, row in zip(found, tested, strict=True):
        assert answer.raw == pytest.approx(row["probabilities"], abs=1e-4)
    # the settings leave it open
    assert Classifier(gated.folder).model.module.answering.gate is None


def likeliest(chances):
    return chances.index(max(chances))


def labels_of(run):
    return json.loads((run.folder / "labels.json").read_text())


def test_rationales_of_weights_that_saw_all_labels_are_refused(crossed):
    rounds = ("--methods.rounds", "[write, rationale, again, more, test]", "--stages.again.kind", "write")
    refused = crossed.again("--method", "rounds", *rounds, "--stages.more.kind", "rationale", "--dry_run")
    assert refused.code == 2
    assert "learns rationales that 'again' wrote with weights that saw all labels" in " ".join(refused.err.split())
