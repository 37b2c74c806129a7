"""Predictions come back as they were written, and probabilities survive likelihoods of any size."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from rbft.errors import DataError
from rbft.evaluation.predictions import Prediction, probabilities, read_predictions, write_predictions

ROW = Prediction("ü", "a/ü.mp4", "push up", "push", (0.75, 0.25), (-1.5, -2.5986122886681098), "It moves.\nUp.")


def test_predictions_round_trip(tmp_path):
    unread = Prediction("2", "2.mp4", "push", None, (), ())
    write_predictions(tmp_path / "predictions.jsonl", [ROW, unread])
    assert read_predictions(tmp_path / "predictions.jsonl") == [ROW, unread]
    first = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    assert first["log_likelihoods"] == [-1.5, -2.5986122886681098]
    keys = {
        "id",
        "video",
        "label",
        "predicted",
        "probabilities",
        "log_likelihoods",
        "rationale",
        "answers",
        "calibrated",
    }
    assert set(first) == keys


def test_answers_of_several_kinds_round_trip(tmp_path):
    both = replace(ROW, rationale="it goes left", answers={"direct": (0.75, 0.25), "rationale": (0.5, 0.5)})
    write_predictions(tmp_path / "predictions.jsonl", [both])
    assert read_predictions(tmp_path / "predictions.jsonl") == [both]


@pytest.mark.parametrize("change", [{"more": 1}, {"probabilities": None}, {"answers": [1]}])
def test_wrong_lines_are_named(tmp_path, change):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [ROW, ROW])
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{json.dumps(json.loads(lines[1]) | change)}\n")
    with pytest.raises(DataError, match=rf"{path}, line 2: not a prediction"):
        read_predictions(path)


def test_a_missing_key_is_named(tmp_path):
    (tmp_path / "predictions.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(DataError, match=r"line 1: not a prediction \('probabilities'\)"):
        read_predictions(tmp_path / "predictions.jsonl")


@pytest.mark.parametrize("offset", [0.0, -1e4, -1e8, 700.0])
def test_probabilities_are_a_softmax(offset):
    scores = [math.log(weight) + offset for weight in (1.0, 2.0, 5.0)]
    found = probabilities(scores)
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert found == pytest.approx((0.125, 0.25, 0.625), rel=1e-6)


def test_hopeless_classes_get_zero_not_an_error():
    assert probabilities([-5.0, -1e6, -math.inf]) == (1.0, 0.0, 0.0)
    assert probabilities([-3.0] * 4) == (0.25,) * 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_prediction(bad, tmp_path):
    with pytest.raises(DataError, match=r"^x\.mp4: its scores are not all finite numbers; score it again"):
        Prediction("x", "x.mp4", "a", "a", (1.0, 0.0), (0.0, bad))
    with pytest.raises(DataError, match=r"not all finite"):
        Prediction("x", "x.mp4", "a", "a", (1.0, 0.0), (0.0, -1.0), answers={"direct": (bad, 0.0)})
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [Prediction("x", "x.mp4", "a", "a", (1.0, 0.0), (0.0, -1.5))])
    path.write_text(path.read_text().replace("-1.5", "NaN"))
    with pytest.raises(DataError, match=r"predictions\.jsonl, line 1: x\.mp4: its scores are not all finite"):
        read_predictions(path)
