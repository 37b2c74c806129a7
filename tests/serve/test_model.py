"""The model that stays loaded answers to the bit as `rbft predict` does, whatever it was asked before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.runs import Run, run_experiment

from rbft.__main__ import main
from rbft.errors import StageError, VideoError
from rbft.predict import Classifier
from rbft.predict.run_settings import read_run
from rbft.serve.app import _answer_json
from rbft.serve.model import ServedModel
from rbft.serve.upload import Upload

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture
def folder(tmp_path: Path, clips: Path) -> Path:
    """The test's clips where uploads would lie, and one that is none."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for number, clip in enumerate(sorted((clips / "test").rglob("*.mp4"))):
        shutil.copy(clip, folder / f"{number}.mp4")
    (folder / "bad.mp4").write_text("no video")
    return folder


def check(run: Path, folder: Path) -> None:
    model, classifier = ServedModel(run), Classifier(run)
    model.load()
    loaded = model._classifier.model.vlm
    videos = sorted(folder.glob("?.mp4"))
    alone = [classifier.predict([video])[0] for video in videos]
    for _ in range(2):  # nothing of the first round shows in the second
        for video, expected in zip(videos, alone, strict=True):
            with pytest.raises(VideoError, match="is text, not a video"):
                model.predict(folder / "bad.mp4", rationale=True)
            for rationale in (True, False):
                answered = model.predict(video, rationale=rationale)
                assert answered.probabilities[: len(expected.top)] == expected.top
                assert (answered.predicted, answered.calibrated) == (expected.predicted, expected.is_calibrated)
                assert (answered.rationale is not None) == (rationale or expected.rationale is not None)
                if expected.rationale is not None:
                    assert answered.rationale == expected.rationale
    assert model._classifier.model.vlm is loaded, "the weights were read once"
    assert model._clips.clip is None, "no frame is kept"


def test_answers_are_those_of_predict(finished: Run, folder: Path) -> None:
    check(finished.folder, folder)


@pytest.mark.slow
def test_so_are_answers_behind_a_rationale_at_another_strength(finished: Run, folder: Path, tmp_path: Path) -> None:
    flags = [
        "--model.answering.mode",
        "mixture",
        "--model.answering.mixture_weight",
        "0.5",
        "--model.answering.max_new_tokens",
        "5",
        "--model.answering.strength",
        "0.5",
        "--model.scoring.prior",
        "blank",
    ]
    check(run_experiment(finished.config, tmp_path, *flags, method="sft").folder, folder)


def test_the_best_classes_alone(
    finished: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = folder / "0.mp4"
    whole = ServedModel(finished.folder).predict(video, rationale=False)
    # there are two classes only
    monkeypatch.setattr("rbft.predict.classifier.TOP", 1)
    best = ServedModel(finished.folder, best_only=True).predict(video, rationale=False)
    assert best.predicted == whole.predicted and best.at_least and not whole.at_least
    assert best.probabilities[0][1] <= whole.probabilities[0][1] + 1e-6
    said = _answer_json(Upload("0.mp4", {}, video), best, 1.0, frames=False)
    assert said["at_least"] is True and "at_least" not in _answer_json(
        Upload("0.mp4", {}, video), whole, 1.0, frames=False
    )
    recorded = read_run(finished.folder)
    reasoned = replace(recorded, choice=replace(recorded.choice, mode="rationale"))
    monkeypatch.setattr("rbft.predict.classifier.read_run", lambda _: reasoned)
    assert main(["serve", "--run", str(finished.folder), "--port", "0", "--best-only"]) == 2
    assert "--best-only: has no probabilities of all classes" in " ".join(capsys.readouterr().err.split())


def test_frames_are_those_the_model_was_given(finished: Run, folder: Path) -> None:
    answered = ServedModel(finished.folder).predict(folder / "0.mp4", rationale=False)
    assert answered.frames.shape[:2] == (4, 3)
    assert len(answered.timestamps) == 4 and answered.timestamps[0] < answered.timestamps[-1] < answered.duration


def test_nothing_outside_of_the_folder_is_read(finished: Run, folder: Path, clips: Path) -> None:
    model = ServedModel(finished.folder)
    (folder / "link.mp4").symlink_to(next(clips.rglob("*.mp4")))
    with pytest.raises(VideoError, match="outside of the data folder"):
        model.predict(folder / "link.mp4", rationale=False)


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no run folder"):
        ServedModel(tmp_path)
