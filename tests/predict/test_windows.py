"""Long videos are answered window by window, by the very frames of each window, and merged as is said."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.runs import CLASSES, Run
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.evaluation.calibration import Calibration
from rbft.evaluation.predictions import Prediction
from rbft.predict import Classifier, Rule, Windows
from rbft.predict.windows import alarm, log_probabilities, merge

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture(scope="module")
def classifier(finished: Run) -> Classifier:
    return Classifier(finished.folder)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of noise, coarse and without loss, four frames a second, a key frame each second."""
    coarse = np.random.default_rng(5).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    return write_noise(tmp_path_factory.mktemp("long") / "long.mkv", coarse)


def write_noise(path: Path, coarse: np.ndarray) -> Path:
    pixels = coarse.repeat(16, axis=1).repeat(16, axis=2)
    return write_video(path, pixels, fps=4, codec="ffv1", pix_fmt="bgr0", gop=4)


@pytest.mark.parametrize(
    ("windows", "duration", "spans"),
    [
        (Windows(4), 10, [(0, 4), (4, 8), (6, 10)]),
        (Windows(4, 2), 8, [(0, 4), (2, 6), (4, 8)]),
        (Windows(4, 2), 4, [(0, 4)]),
        (Windows(4), 1.5, [(0, 1.5)]),
        (Windows(0.3, 0.1), 0.6, [(0, 0.3), (0.1, 0.4), (0.2, 0.5), (0.3, 0.6)]),
    ],
)
def test_windows_cover_a_video_and_are_of_one_length(windows: Windows, duration: float, spans: list) -> None:
    assert windows.spans(duration) == [pytest.approx(span) for span in spans]


def test_a_window_is_answered_as_a_file_cut_from_it_would_be(classifier: Classifier, long: Path) -> None:
    (whole,) = classifier.predict([long], windows=Windows(2))
    assert [(moment.start, moment.end) for moment in whole.timeline] == [(0, 2), (2, 4), (3, 5)]
    coarse = np.random.default_rng(5).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    files = [write_noise(long.with_name(f"cut{start}.mkv"), coarse[4 * start : 4 * start + 8]) for start in (0, 2, 3)]
    cut = classifier.predict(files)
    for moment, alone in zip(whole.timeline, cut, strict=True):
        assert moment.predicted == alone.predicted
        assert moment.probability == pytest.approx(alone.probability, abs=1e-5)
    # merged: the mean of the windows' log-probabilities, before or after the temperature alike
    mean = np.mean([np.log(np.maximum(answer.raw, 1e-300)) for answer in cut], axis=0)
    assert whole.raw == pytest.approx(np.exp(mean) / np.exp(mean).sum(), rel=1e-3)
    mean = np.mean([np.log(answer.calibrated) for answer in cut], axis=0)
    assert whole.calibrated == pytest.approx(np.exp(mean) / np.exp(mean).sum(), rel=1e-3)
    assert len({answer.raw for answer in cut}) == 3, "other frames, other answers"


def test_a_video_of_one_window_is_answered_like_a_clip(classifier: Classifier, clips: Path) -> None:
    video = next((clips / "test").rglob("*.mp4"))
    (plain,), (windowed,) = classifier.predict([video]), classifier.predict([video], windows=Windows(60))
    assert windowed.raw == pytest.approx(plain.raw, rel=1e-9)
    assert len(windowed.timeline) == 1 and not plain.timeline


def test_an_alarm_is_as_sure_as_its_surest_window(classifier: Classifier, long: Path) -> None:
    (mean,) = classifier.predict([long], windows=Windows(1))
    for name in CLASSES:
        (rung,) = classifier.predict([long], windows=Windows(1), alarm=name)
        place = CLASSES.index(name)
        surest = max(dict(moment.top)[name] for moment in rung.timeline)
        assert rung.calibrated[place] == pytest.approx(surest) and rung.calibrated[place] > mean.calibrated[place]
        assert sum(rung.calibrated) == pytest.approx(1) and sum(rung.raw) == pytest.approx(1)


def test_rationales_are_of_the_window_that_speaks_most_for_the_class(classifier: Classifier, long: Path) -> None:
    (said,) = classifier.predict([long], windows=Windows(1), rationale=True)
    told = [moment for moment in said.timeline if moment.rationale is not None]
    assert len(told) == 1 and told[0].rationale == said.rationale
    assert dict(told[0].top)[said.predicted] == max(dict(moment.top)[said.predicted] for moment in said.timeline)


def test_the_command_writes_a_timeline_and_does_the_rest_where_a_window_is_bad(
    finished: Run, long: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.jsonl"
    flags = ["--window", "2", "--stride", "1", "--alarm", CLASSES[1], "--to", str(out)]
    assert main(["predict", "--run", str(finished.folder), str(long), *flags]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert [moment["start"] for moment in row["timeline"]] == [0, 1, 2, 3]
    assert all(moment["predicted"] in CLASSES and 0 < moment["probability"] <= 1 for moment in row["timeline"])
    damaged = write_video(tmp_path / "damaged.mp4", num_frames=20, fps=4, gop=4)
    content = bytearray(damaged.read_bytes())
    # pictures of the fourth second; the table after them is left whole
    place = content.index(b"mdat") + int((content.index(b"moov") - content.index(b"mdat")) * 0.7)
    content[place : place + 400] = bytes(400)
    damaged.write_bytes(content)
    (tmp_path / "none.mp4").write_bytes(b"no video")
    assert main(["predict", "--run", str(finished.folder), str(tmp_path), *flags]) == 1
    rows = {Path(row["video"]).name: row for row in map(json.loads, out.read_text().splitlines())}
    assert rows["none.mp4"]["predicted"] is None and "none.mp4" in rows["none.mp4"]["error"]
    states = ["error" in moment for moment in rows["damaged.mp4"]["timeline"]]
    assert not all(states) and any(states), "the other windows are answered"
    assert rows["damaged.mp4"]["predicted"] in CLASSES
    assert f"{sum(states)} of 4 windows cannot be read" in rows["damaged.mp4"]["error"]
    capsys.readouterr()
    assert main(["predict", "--run", str(finished.folder), str(long), "--window", "1"]) == 0
    assert "from 0 s: " in capsys.readouterr().out


def test_of_a_recording_that_was_cut_short_the_windows_that_are_there_are_answered(
    classifier: Classifier, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faststart = {"movflags": "faststart"}
    video = write_video(tmp_path / "a.mp4", num_frames=200, size=(48, 64), bframes=2, container_options=faststart)
    cut, stub = tmp_path / "cut.mp4", tmp_path / "stub.mp4"
    content = video.read_bytes()
    cut.write_bytes(content[: int(len(content) * 0.7)])
    stub.write_bytes(content[: int(len(content) * 0.35)])
    whole, part, nothing = classifier.predict([video, cut, stub], windows=Windows(2))
    times = [(moment.start, moment.end) for moment in part.timeline]
    assert times[:-1] == [(0, 2), (2, 4)] and 4 < times[-1][1] < 6
    for moment, same in zip(part.timeline[:2], whole.timeline[:2], strict=True):
        assert dict(moment.top) == pytest.approx(dict(same.top), abs=1e-6)
    assert all(moment.error is None for moment in part.timeline) and part.predicted in CLASSES
    assert re.fullmatch(r".*cut\.mp4: is cut short: .*; answered from its first (\S+) s", part.error)
    assert whole.error is None
    assert nothing.predicted is None and not nothing.timeline, "not one window is there"
    assert "is cut short" in nothing.error and "answered" not in nothing.error
    assert main(["predict", "--run", str(finished.folder), str(cut), "--window", "2"]) == 1
    assert "is cut short" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["a.mp4", "a.h264"])
def test_processes_that_decode_change_no_window(
    name: str, classifier: Classifier, finished: Run, tmp_path: Path
) -> None:
    video = write_video(tmp_path / name, num_frames=150, size=(48, 64), bframes=2)
    ways = (classifier, Classifier(finished.folder, ["--data.num_workers", "2", "--data.cache_clips", "false"]))
    (alone,), (together,) = (way.predict([video], windows=Windows(2, 1)) for way in ways)
    assert len(alone.timeline) == 5 and alone.error is None
    assert [moment.top for moment in together.timeline] == [moment.top for moment in alone.timeline]


def test_a_recording_of_hours_is_looked_at_in_windows(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve pictures in two hours, as a camera that waits for motion stores them."""
    video = write_video(tmp_path / "night.mp4", num_frames=12, size=(48, 64), times=[600 * i for i in range(12)])
    ask = ["predict", "--run", str(finished.folder), str(video)]
    assert main(ask) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "over the limit of 3600 s; look at it with `rbft predict --window SECONDS`" in said
    assert main([*ask, "--window", "300", "--to", str(tmp_path / "a.jsonl")]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [moment["start"] for moment in row["timeline"]][:3] == [0, 300, 600] and len(row["timeline"]) == 23
    assert row["timeline"][0]["top"] == row["timeline"][1]["top"], "the picture stands still for ten minutes"
    assert main([*ask, "--data.max_seconds", "8000"]) == 0, "as advised"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stride", "1"], "--stride: needs --window"),
        (["--window", "1", "--stride", "2"], "longer than the window"),
        (["--window", "0"], "must be a number of seconds above 0"),
        (["--alarm", CLASSES[0]], "needs --window"),
        (["--window", "1", "--alarm", "nothing"], "no class of the run"),
        (["--window", "1", "--precision", f"{CLASSES[0]}=0.9"], "holds for whole clips and not for windows"),
    ],
)
def test_wrong_use_is_refused(
    finished: Run, long: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--run", str(finished.folder), str(long), *flags]) == 2
    assert message in capsys.readouterr().err


def test_merging_by_hand() -> None:
    found = merge([(math.log(0.9), math.log(0.1)), (math.log(0.5), math.log(0.5))])
    assert found == pytest.approx((math.log(0.9 * 0.5) / 2, math.log(0.1 * 0.5) / 2))
    assert alarm((0.5, 0.3, 0.2), 0.9, 0) == pytest.approx((0.9, 0.06, 0.04))
    assert alarm((1.0, 0.0), 0.7, 0) == pytest.approx((0.7, 0.0))


def test_a_class_that_a_window_shows_is_the_videos_whatever_the_others_share() -> None:
    assert alarm((0.1, 0.8, 0.1), 0.45, 0) == pytest.approx((0.45, 0.55 * 8 / 9, 0.55 / 9))
    found = alarm((0.1, 0.8, 0.1), 0.45, 0, shown=True)
    assert found == pytest.approx((0.45, 0.45, 0.1)) and found.index(max(found)) == 0
    found = alarm((0.5, 0.3, 0.15, 0.05), 0.28, 3, shown=True)
    assert found == pytest.approx((0.28, 0.28, 0.16, 0.28)) and found.index(max(found)) == 3
    assert alarm((0.5, 0.3, 0.2), 0.9, 0, shown=True) == pytest.approx((0.9, 0.06, 0.04))


def test_logarithms_are_finite() -> None:
    assert log_probabilities((0.0, -1e6))[1] == pytest.approx(math.log(1e-300))


def test_rules_decide() -> None:
    assert Rule().decide({"a": 0.4, "b": 0.6}) == ("b", 0.6)
    assert Rule(0.7).decide({"a": 0.4, "b": 0.6}) == (None, 0.6)
    assert Rule(0.6).decide({"a": 0.4, "b": 0.6}) == ("b", 0.6)
    for wrong in (0.0, 1.0, 1.5):
        with pytest.raises(ConfigError, match="--min-confidence"):
            Rule(wrong)


def test_an_alarm_of_many_classes_rings_where_one_window_shows_it(classifier: Classifier) -> None:
    """Two windows: one is answered with the class, by less than a half; the other one is sure of another class."""
    wide = object.__new__(Classifier)
    wide.labels = LabelSet(("fall", "sit", "walk"))
    wide.recorded, wide._best_only = replace(classifier.recorded, calibration=Calibration(absent="none")), False
    records = [VideoRecord(str(number), "a.mp4", "walk", part=(number, number + 1)) for number in (0, 1)]
    rows = [(0.4, 0.3, 0.3), (0.01, 0.01, 0.98)]
    logs = [tuple(map(math.log, row)) for row in rows]
    said = {
        record.id: Prediction(record.id, "a.mp4", "walk", ("fall", "sit", "walk")[row.index(max(row))], row, log)
        for record, row, log in zip(records, rows, logs, strict=True)
    }
    found = wide._merged("a.mp4", records, said, {}, "fall")
    assert (found.predicted, found.probability) == ("fall", 0.4)
    assert wide._merged("a.mp4", records, said, {}, "sit").predicted == "walk", "no window shows it"
