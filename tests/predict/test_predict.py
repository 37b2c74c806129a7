"""Predicting with a run answers as its test did, from its folder alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from tests.support.runs import CLASSES, Run, run_experiment

from rbft.__main__ import main
from rbft.errors import ConfigError, StageError
from rbft.evaluation.predictions import read_predictions
from rbft.predict import Classifier
from rbft.predict.command import expand

pytest_plugins = ["tests.support.run_fixtures"]


def test_answers_are_those_of_the_test_to_the_last_bit(finished: Run, clips: Path) -> None:
    tested = read_predictions(finished.folder / "predictions.jsonl")
    found = Classifier(finished.folder).predict([clips / prediction.video for prediction in tested])
    for answer, prediction in zip(found, tested, strict=True):
        assert answer.predicted == prediction.predicted
        assert answer.raw == prediction.probabilities and answer.calibrated == prediction.calibrated
        assert answer.probability == max(prediction.calibrated or prediction.probabilities)
        assert dict(answer.top) == dict(zip(CLASSES, prediction.calibrated or prediction.probabilities, strict=True))
        assert answer.is_calibrated == bool(prediction.calibrated)
        assert answer.error is None


def test_the_data_set_is_not_needed(finished: Run, clips: Path, tmp_path: Path) -> None:
    """Nothing but the run folder and the videos: not the experiment file, the training videos or their folder."""
    run = tmp_path / "elsewhere" / "a" / "b"
    shutil.copytree(finished.folder, run)
    video = tmp_path / "new.mp4"
    shutil.copy(clips / read_predictions(run / "predictions.jsonl")[0].video, video)
    (run / "splits.json").unlink()
    moved = clips.with_name("moved away")
    clips.rename(moved)
    try:
        (answer,) = Classifier(run).predict([video])
    finally:
        moved.rename(clips)
    # alone, products of matrices round otherwise than in the test's batch
    assert answer.raw == pytest.approx(read_predictions(run / "predictions.jsonl")[0].probabilities, abs=1e-6)


def test_ways_of_answering_go_along(finished: Run, clips: Path, tmp_path: Path) -> None:
    flags = ["--model.answering.mode", "rationale", "--model.answering.max_new_tokens", "5"]
    flags += ["--model.answering.strength", "0.5"]
    run = run_experiment(finished.config, tmp_path, *flags, method="sft")
    tested = read_predictions(run.folder / "predictions.jsonl")
    found = Classifier(run.folder).predict([clips / prediction.video for prediction in tested])
    for answer, prediction in zip(found, tested, strict=True):
        assert answer.raw == pytest.approx(prediction.probabilities, abs=1e-6)
        assert answer.rationale == prediction.rationale


def test_command_answers_folders_and_tables_and_does_the_rest_where_a_file_is_bad(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(clips / "test", folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    count = len(list(folder.rglob("*.mp4")))
    out = tmp_path / "answers.jsonl"
    assert main(["predict", "--run", str(finished.folder), str(folder), "--to", str(out)]) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    assert [row["video"] for row in rows if "error" in row] == [str(folder / "broken.mp4")]
    assert "broken.mp4" in next(row["error"] for row in rows if "error" in row)
    assert {row["predicted"] for row in rows if "error" not in row} <= set(CLASSES)
    table = tmp_path / "some.csv"
    good = [Path(row["video"]) for row in rows if "error" not in row][:2]
    table.write_text("path,other\n" + "".join(f"{path.relative_to(tmp_path)},x\n" for path in good))
    assert main(["predict", "--run", str(finished.folder), str(table), "--to", str(tmp_path / "answers.csv")]) == 0
    written = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert [row["video"] for row in written] == [str(path) for path in good]
    assert main(["predict", "--run", str(finished.folder), str(good[0])]) == 0
    assert good[0].name in capsys.readouterr().out


def test_answers_are_never_overwritten(finished: Run, clips: Path, tmp_path: Path) -> None:
    out, video = tmp_path / "answers.jsonl", next((clips / "test").rglob("*.mp4"))
    for _ in range(2):
        assert main(["predict", "--run", str(finished.folder), str(video), "--to", str(out)]) == 0
    assert (tmp_path / "answers.jsonl.old-1").is_file()


def test_wrong_use_is_refused(finished: Run, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no run folder"):
        Classifier(tmp_path)
    with pytest.raises(ConfigError, match=r"--data\.num_frames: a run is predicted with as it was tested"):
        Classifier(finished.folder, ["--data.num_frames", "3"])
    copy = tmp_path / "a" / "b" / "c"
    shutil.copytree(finished.folder, copy)
    weights = next((copy / "classification" / "adapter").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(StageError, match="classification"):
        Classifier(copy)
    assert main(["predict", "--run", str(finished.folder)]) == 2
    assert main(["predict", "--run", str(finished.folder), str(clips), "--to", "x.txt"]) == 2
    assert main(["predict", "--run", str(finished.folder), str(tmp_path / "missing.mp4")]) == 1


def test_folders_and_tables_are_expanded(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "a/1.AVI", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand(tmp_path) == [tmp_path / "a" / "1.AVI", tmp_path / "b" / "2.mp4"]
    (tmp_path / "list.jsonl").write_text('{"path": "b/2.mp4", "more": 1}\n')
    assert expand(tmp_path / "list.jsonl") == [tmp_path / "b" / "2.mp4"]
