"""Probabilities are calibrated where the run is, and a class is only answered with enough confidence."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.runs import CLASSES, Run, run_experiment

from rbft.__main__ import main
from rbft.errors import StageError
from rbft.evaluation.calibration import Calibration, fit_temperature
from rbft.evaluation.predictions import read_predictions, write_predictions
from rbft.evaluation.thresholds import Threshold
from rbft.predict import Classifier, Rule
from rbft.predict.answers import write_answers
from rbft.runs.stage_record import hash_outputs, read_record, write_record

pytest_plugins = ["tests.support.run_fixtures"]


def test_the_run_is_calibrated_on_its_validation_videos(finished: Run) -> None:
    folder = finished.folder
    told = Calibration.from_json(json.loads((folder / "calibration.json").read_text()), "run")
    validated = read_predictions(folder / "test" / "validation.jsonl")
    assert sorted(p.video.split("/")[0] for p in validated) == ["val", "val"]
    plain = [replace(prediction, calibrated=()) for prediction in validated]
    assert told == fit_temperature(plain, CLASSES) and told.temperature is not None
    assert told.apply(plain) == validated
    for prediction in read_predictions(folder / "predictions.jsonl"):
        assert prediction.calibrated == told.calibrated(prediction.log_likelihoods)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/ece_calibrated"] is not None and metrics["test/ece_calibrated"] != metrics["test/ece"]
    assert told.describe() in finished.result.out
    assert "Confidence" in (folder / "report.html").read_text()
    shown = EventAccumulator(str(folder / "test" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert "test/reliability" in shown.Tags()["images"]


def test_calibration_can_be_left_out_and_is_then_stated_as_absent(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model.answering.calibrate", "false"]
    run = run_experiment(finished.config, tmp_path, *flags, method="zero_shot")
    told = json.loads((run.folder / "calibration.json").read_text())
    assert told["temperature"] is None and "model.answering.calibrate is off" in told["absent"]
    assert not (run.folder / "test" / "validation.jsonl").exists()
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["test/ece_calibrated"] is None and metrics["test/ece"] is not None
    video = next((clips / "test").rglob("*.mp4"))
    assert main(["predict", "--run", str(run.folder), str(video), "--to", str(tmp_path / "a.jsonl")]) == 0
    assert "not calibrated" in capsys.readouterr().out
    row = json.loads((tmp_path / "a.jsonl").read_text())
    assert row["calibrated"] is False
    assert main(["predict", "--run", str(run.folder), str(video), "--precision", f"{CLASSES[0]}=0.9"]) == 1
    assert "no predictions of validation videos" in capsys.readouterr().err


def test_below_a_confidence_no_class_is_said(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = sorted((clips / "test").rglob("*.mp4"))
    found = Classifier(finished.folder).predict(videos)
    chances = sorted(answer.probability for answer in found)
    between = str((chances[1] + chances[2]) / 2)
    command = ["predict", "--run", str(finished.folder), *map(str, videos), "--min-confidence", between]
    assert main([*command, "--to", str(tmp_path / "a.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["predicted"] is None for row in rows] == [answer.probability < float(between) for answer in found]
    assert [row.get("abstained", False) for row in rows] == [row["predicted"] is None for row in rows]
    assert [row["probability"] for row in rows] == [answer.probability for answer in found], "it is still told"
    assert "2 of 5 videos: no class is confident enough" in capsys.readouterr().out
    assert main([*command, "--to", str(tmp_path / "a.csv")]) == 0
    written = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["abstained"] == "true" for row in written] == [row["predicted"] is None for row in rows]
    assert main(command) == 0
    assert capsys.readouterr().out.count("not sure, ") == 2


def test_a_class_is_said_from_its_threshold_on_and_never_below(
    copy: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation videos are replaced by more of them, which is what a larger data set would have left."""
    name, videos = CLASSES[0], sorted((clips / "test").rglob("*.mp4"))
    command = ["predict", "--run", str(copy.folder), *map(str, videos), "--precision", f"{name}=0.9"]
    assert main(command) == 1
    assert "At least 29 of them" in capsys.readouterr().err
    found = Classifier(copy.folder).predict(videos)
    cut = sorted(dict(answer.top)[name] for answer in found)[2]
    folder = copy.folder / "test"
    (one, *_) = read_predictions(folder / "validation.jsonl")
    rows = [
        replace(
            one, id=str(i), label=name if i < 40 else CLASSES[1], calibrated=(cut + 1e-6 * (39 - i) - 1e-9, 1 - cut)
        )
        for i in range(1, 80)
    ]
    write_predictions(folder / "validation.jsonl", rows)
    with pytest.raises(StageError, match=r"validation\.jsonl was changed"):
        Classifier(copy.folder)
    record = read_record(folder)
    write_record(folder, replace(record, outputs=hash_outputs(folder, list(record.outputs))))
    assert main([*command, "--to", str(tmp_path / "a.jsonl")]) == 0
    out = capsys.readouterr().out
    assert f"{name} is answered from a probability of {rows[38].calibrated[0]:.4g} on" in out and "recall 100.0%" in out
    said = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["predicted"] == name for row in said] == [dict(answer.top)[name] >= cut for answer in found]
    assert sum(row["predicted"] == name for row in said) == 3
    # the best of three epochs on these very videos: so few of them promise less
    for stage, chosen in (("classification", {"best_epoch": 1, "validations": 3}), ("rationale", {"best_epoch": 2})):
        before = read_record(copy.folder / stage)
        write_record(copy.folder / stage, replace(before, summary=before.summary | chosen))
    steps = read_record(copy.folder / "rationale").summary["steps"]
    assert Classifier(copy.folder).recorded.weights_chosen_from == 3 * steps
    assert main([*command[:-1], f"{name}=0.92"]) == 1
    least = math.ceil(math.log(0.05 / 3 / steps) / math.log(0.92))
    assert f"At least {least} of them" in capsys.readouterr().err
    assert main([*command[:-1], "walks"]) == 2
    assert "--precision walks: say a class and a precision" in capsys.readouterr().err


def test_a_rationale_is_written_on_request_and_changes_no_answer(copy: Run, clips: Path) -> None:
    videos = sorted((clips / "test").rglob("*.mp4"))
    short = ("--stage", "test", "--model.answering.max_new_tokens", "5")
    assert copy.again(*short).code == 0
    classifier = Classifier(copy.folder)
    plain, reasoned = classifier.predict(videos), classifier.predict(videos, rationale=True)
    assert all(answer.rationale is None for answer in plain)
    assert all(answer.rationale for answer in reasoned)
    assert len({answer.rationale for answer in reasoned}) > 1, "about the videos"
    for one, other in zip(plain, reasoned, strict=True):
        assert other.raw == pytest.approx(one.raw, abs=1e-6)
    # written by the weights that are asked, as answering after a rationale writes
    assert copy.again(*short, "--model.answering.mode", "rationale").code == 0
    by_run = {p.video: p.rationale for p in read_predictions(copy.folder / "predictions.jsonl")}
    assert {Path(answer.video).relative_to(clips).as_posix(): answer.rationale for answer in reasoned} == by_run


def test_workers_and_batches_change_no_answer_and_the_model_is_loaded_once(finished: Run, clips: Path) -> None:
    videos = [*sorted((clips / "test").rglob("*.mp4")), clips / "nothing.mp4"]
    flags = ["--data.num_workers", "2", "--data.eval_batch_size", "2", "--data.cache_clips", "false"]
    classifier = Classifier(finished.folder, [*flags, "--data.cache_features", "false"])
    found = classifier.predict(videos)
    loaded = classifier.model
    for one, other in zip(found, Classifier(finished.folder).predict(videos), strict=True):
        assert other.raw == pytest.approx(one.raw, abs=1e-5)
        assert one.error == other.error
    assert "nothing.mp4" in found[-1].error and found[-1].predicted is None
    assert classifier.predict(videos[:1])[0].raw == pytest.approx(found[0].raw, abs=1e-5)
    assert classifier.model is loaded


def test_thresholds_and_abstaining_together() -> None:
    rule = Rule(0.3, (Threshold("a", 0.9, 0.6, 1.0, 0.9, 1.0, 30), Threshold("b", 0.9, 0.2, 1.0, 0.9, 1.0, 30)))
    assert rule.decide({"a": 0.5, "b": 0.1, "c": 0.4}) == ("c", 0.4), "a is likelier, and below its threshold"
    assert rule.decide({"a": 0.45, "b": 0.35, "c": 0.2}) == ("b", 0.35), "what is sure is said, likeliest or not"
    assert rule.decide({"a": 0.59, "b": 0.16, "c": 0.25}) == (None, 0.59)
    assert rule.decide({"a": 0.59, "b": 0.19}) == (None, 0.59), "no class is left"


def test_an_empty_list_is_an_empty_file(tmp_path: Path) -> None:
    write_answers(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_text() == ""
