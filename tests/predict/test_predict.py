"""Predicting with a run answers as its test did, from its folder alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from tests.support.runs import CLASSES, Run, run_experiment
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.errors import ConfigError, DataError, StageError
from rbft.evaluation.predictions import read_predictions
from rbft.predict import Classifier, expand, inputs

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


def test_a_run_may_lie_below_any_folder(finished: Run, clips: Path) -> None:
    tested = read_predictions(finished.folder / "predictions.jsonl")[0]
    with TemporaryDirectory(dir="/tmp") as folder:
        shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
        (answer,) = Classifier(folder).predict([clips / tested.video])
    assert answer.predicted == tested.predicted


def test_one_video_may_stand_by_itself(finished: Run, clips: Path) -> None:
    classifier = Classifier(finished.folder)
    video = clips / read_predictions(finished.folder / "predictions.jsonl")[0].video
    answers = classifier.predict([video])
    assert classifier.predict(video) == classifier.predict(str(video)) == answers
    assert classifier.predict(expand(video)[0]) == answers and answers[0].predicted is not None


def test_the_best_classes_alone_are_those_of_all(
    finished: Run, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = read_predictions(finished.folder / "predictions.jsonl")
    classifier = Classifier(finished.folder)
    videos = [clips / prediction.video for prediction in tested]
    whole = classifier.predict(videos)
    assert classifier.predict(videos, best_only=True) == whole, "there are no more than five"
    monkeypatch.setattr("rbft.predict.classifier.TOP", 1)
    for answer, other in zip(classifier.predict(videos, best_only=True), whole, strict=True):
        assert answer.predicted == other.predicted and answer.at_least and not other.at_least
        assert answer.probability is not None and other.probability is not None
        assert answer.probability <= other.probability + 1e-6
    assert classifier.predict(videos) == whole, "the next question is about all again"
    command = ["predict", "--run", str(finished.folder), "--best-only", str(videos[0])]
    assert main(command) == 0
    assert "(at least)" in capsys.readouterr().out
    assert main([*command, "--min-confidence", "0.5"]) == 2
    assert "--best-only: has no probabilities of all classes" in " ".join(capsys.readouterr().err.split())


class _Asked(Exception):
    """Where weights were to be read to."""


def test_weights_are_read_onto_the_device(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise _Asked(torch.get_default_device())

    model = Classifier(finished.folder).model
    model.device = torch.device("meta")
    monkeypatch.setattr("rbft.training.module.load_model", load)
    with pytest.raises(_Asked, match="meta"):
        _ = model.vlm


def test_ways_of_answering_go_along(finished: Run, clips: Path, tmp_path: Path) -> None:
    flags = ["--model.answering.mode", "rationale", "--model.answering.max_new_tokens", "5"]
    flags += ["--model.answering.strength", "0.5"]
    run = run_experiment(finished.config, tmp_path, *flags, method="sft")
    tested = read_predictions(run.folder / "predictions.jsonl")
    found = Classifier(run.folder).predict([clips / prediction.video for prediction in tested])
    for answer, prediction in zip(found, tested, strict=True):
        assert answer.raw == pytest.approx(prediction.probabilities, abs=1e-6)
        assert answer.rationale == prediction.rationale


def test_sampled_words_depend_on_the_video_alone(finished: Run, clips: Path, tmp_path: Path) -> None:
    flags = ["--model.answering.mode", "rationale", "--model.answering.max_new_tokens", "5"]
    flags += ["--model.answering.samples", "2", "--model.answering.temperature", "1.0"]
    run = run_experiment(finished.config, tmp_path / "runs", *flags, method="sft")
    tested = read_predictions(run.folder / "predictions.jsonl")
    classifier = Classifier(run.folder)
    # the data set's videos as in the test, whatever folder they share
    for prediction in tested[:2]:
        (alone,) = classifier.predict([clips / prediction.video])
        assert alone.raw == pytest.approx(prediction.probabilities, abs=1e-6)
        assert alone.rationale == prediction.rationale
    # and others the same under any name, in any company
    first, other = (clips / prediction.video for prediction in tested[:2])
    for name in ("a.mp4", "deep/in/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, tmp_path / name)
    shutil.copy(other, tmp_path / "c.mp4")
    (alone,) = classifier.predict([tmp_path / "a.mp4"])
    found = classifier.predict([tmp_path / "c.mp4", tmp_path / "deep/in/b.mp4"])
    assert found[1].rationale == alone.rationale and found[1].raw == pytest.approx(alone.raw, abs=1e-6)
    assert found[0].rationale != alone.rationale


def test_command_answers_folders_and_tables_and_does_the_rest_where_a_file_is_bad(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    shutil.copytree(clips / "test", folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    count = len(list(folder.rglob("*.mp4")))
    for name in ("._broken.mp4", ".trash/deleted.mp4", "__MACOSX/._broken.mp4", "cover.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no video either")
    out = tmp_path / "answers.jsonl"
    assert main(["predict", "--run", str(finished.folder), str(folder), "--to", str(out)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "left out are 1 file without a video's suffix (.jpg 1); 3 hidden files or folders" in said
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


def test_a_clip_that_the_processor_refuses_costs_no_other_answer(finished: Run, clips: Path, tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.mkv", np.zeros((3, 2, 1000, 3), np.uint8), codec="ffv1", pix_fmt="bgr0")
    good = next((clips / "test").rglob("*.mp4"))
    first, second = Classifier(finished.folder).predict([wide, good])
    assert first.error is not None and "wide.mkv: the model's processor refuses a clip of" in first.error
    assert second.error is None and second.predicted in CLASSES


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv"])
def test_answers_are_never_overwritten(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out, video = tmp_path / name, next((clips / "test").rglob("*.mp4"))
    out.touch()
    for _ in range(3):
        assert main(["predict", "--run", str(finished.folder), str(video), "--to", str(out)]) == 0
    assert (tmp_path / f"{name}.old-2").is_file()
    assert "what was there is now" in capsys.readouterr().out


def test_answers_take_the_place_of_nothing_else(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((clips / "test").rglob("*.mp4"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,fall\n")
    (tmp_path / "answers.csv").write_text("video,predicted,probability,abstained,rationale,error,label\na,b,1,,,,c\n")
    (tmp_path / "notes.jsonl").write_text("no table")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name in before:
        assert main(["predict", "--run", str(finished.folder), str(video), "--to", str(tmp_path / name)]) == 2
        assert f"{name}: holds something else than answers of rbft predict" in capsys.readouterr().err
    assert main(["predict", "--run", str(finished.folder), str(video), "--to", str(tmp_path / "folder.csv")]) == 2
    assert "folder.csv: is a folder; name another place for the file" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


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
    both = [str(tmp_path / "a" / "1.AVI"), str(tmp_path / "b" / "2.mp4")]
    assert [video.name for video in expand(tmp_path)] == [video.name for video in expand(str(tmp_path))] == both
    (tmp_path / "list.JSONL").write_text('{"path": "b/2.mp4", "more": 1}\n')
    assert [video.name for video in expand(tmp_path / "list.JSONL")] == both[1:]
    for header in ("Path,x", "x,video", "file_name,Label"):
        place = header.split(",").index("x") if "x" in header else 1
        (tmp_path / "list.csv").write_text(f"{header}\n" + ("0,b/2.mp4" if place == 0 else "b/2.mp4,0"))
        assert [(video.name, video.problem) for video in expand(tmp_path / "list.csv")] == [(both[1], "")]
    for name, header, message in [
        (
            "list.csv",
            "where,x",
            r"row 1: no column of it is known to hold paths \(columns: 'where', 'x'\)\. Call it path",
        ),
        ("list.csv", "path;x", "separated by another character: .csv means commas"),
    ]:
        (tmp_path / name).write_text(f"{header}\nb/2.mp4{header[-2]}0\n")
        with pytest.raises(DataError, match=message):
            expand(tmp_path / name)


def test_a_tilde_is_the_home_folder_of_a_user_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~.mp4").touch()
    assert expand(Path("~.mp4"))[0].resolve() == tmp_path / "~.mp4"
    assert inputs.named("~/a.mp4").path == str(tmp_path / "home" / "a.mp4")


def test_tables_are_read_as_those_to_train_on(tmp_path: Path) -> None:
    def problems(name: str, content: bytes) -> list[str]:
        (tmp_path / name).write_bytes(content)
        return [video.problem for video in expand(tmp_path / name)]

    assert problems("a.CSV", b"\xef\xbb\xbfpath\nb.mp4\n") == problems("a.tsv", b"path\tlabel\nb.mp4\tx\n") == [""]
    wrong = problems("b.csv", b"path,x\nb.mp4,\n,x\na\0.mp4,\n")
    assert [problem.partition(": ")[2] for problem in wrong] == [
        "",
        "the path '' is empty. Write it relative to the table's folder, with '/'.",
        "the path 'a\\x00.mp4' holds a control character. Write it relative to the table's folder, with '/'.",
    ]
    (half,) = problems("b.jsonl", b'{"path": "\\ud83d.mp4"}\n')
    assert "is not valid UTF-8" in half
    with pytest.raises(DataError, match=r"c\.csv, row 2: not UTF-8; save the file as UTF-8"):
        problems("c.csv", "path\nmüll.mp4\n".encode("latin-1"))


def write_ways_out(tmp_path: Path) -> tuple[Path, Path]:
    """A folder and a table that name a note beside them in every way, and the one clip that is theirs."""
    (tmp_path / "private").mkdir()
    note = tmp_path / "private" / "notes.mp4"
    note.write_text("password=hunter2\n")
    folder = tmp_path / "videos"
    (folder / "below").mkdir(parents=True)
    (folder / "link.mp4").symlink_to(note)
    (folder / "below" / "relative.mp4").symlink_to("../../private/notes.mp4")
    (folder / "own.mp4").symlink_to("below/real.mp4")
    table = folder / "list.jsonl"
    paths = ["link.mp4", "../private/notes.mp4", str(note), f"file:{note}", "a\0b.mp4", "\ud83d.mp4", "", "own.mp4"]
    table.write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    return folder, table


def test_no_link_and_no_row_leads_out_of_the_folder_that_was_named(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = write_ways_out(tmp_path)
    shutil.copy(next((clips / "test").rglob("*.mp4")), folder / "below" / "real.mp4")
    (folder / "text.mp4").write_text("password=hunter2\n")
    for named, readable in ((folder, ["below/real.mp4", "own.mp4"]), (table, ["own.mp4"])):
        for out in (tmp_path / f"{named.stem}.jsonl", tmp_path / f"{named.stem}.csv"):
            assert main(["predict", "--run", str(finished.folder), str(named), "--to", str(out)]) == 1
            assert "hunter2" not in out.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
        assert [row["video"] for row in rows if "error" not in row] == [str(folder / name) for name in readable]
        errors = " ".join(row["error"] for row in rows if "error" in row)
        assert "outside of the data folder" in errors
        assert main(["predict", "--run", str(finished.folder), str(named)]) == 1
    assert [row["video"] for row in rows][5] == str(folder / "\ud83d.mp4"), "half a surrogate pair is written and read"
    for problem in ("row 2: the path '../private/notes.mp4' leads out of its folder", "row 3", "is a URL", "is empty"):
        assert problem in errors
    assert "hunter2" not in capsys.readouterr().out
    (answer,) = Classifier(finished.folder).predict([folder / "link.mp4"])
    assert answer.error is not None and answer.error.endswith("is text, not a video"), "who names a link means it"
