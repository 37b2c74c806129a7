"""What a report adds up of its runs is what their files hold, and files that do not fit are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.support.finished_runs import CLASSES, VIDEOS, predictions, write_run

from rbft.errors import DataError
from rbft.evaluation.comparison import compare
from rbft.evaluation.predictions import read_predictions, write_predictions
from rbft.report.collection import collect
from rbft.report.group_data import digest, mean_of, read_checked
from rbft.runs.run_folder import REPLICATES

ALL = ("zero_shot", "write", "rationale", "classification", "test")


def digested(root):
    entries = collect([str(root)])
    groups = compare([entry.member() for entry in entries], None, REPLICATES)
    assert len(groups) == 1
    return digest(groups[0], entries)


def test_runs_of_a_group_are_added_up(tmp_path):
    for seed, right in enumerate((12, 18, 15)):
        write_run(tmp_path, "sft", right, seed=seed)
    found = digested(tmp_path)
    assert found.confusion.sum() == 3 * VIDEOS
    assert found.confusion.trace() == 12 + 18 + 15
    assert found.recalls["lift"] == (4 + 6 + 5, 24)
    assert sum(one.count for one in found.bins) == 3 * VIDEOS
    answer = found.answers["lift/15"]
    assert (answer.right, answer.runs, answer.wrong) == (1, 3, True)
    mean = np.mean([predictions(right, seed)[15].probabilities for seed, right in enumerate((12, 18, 15))], axis=0)
    assert np.allclose(answer.chances, mean)
    assert found.mean("test/ece") == 0.125
    assert found.mean("test/auroc") is None, "what is not defined is no 0"
    assert (found.stage_mean("classification"), found.stage_mean("classification", "steps")) == (60.0, 10.0)
    assert found.stage_mean("write") is None


def test_rationales_are_those_before_and_after_and_their_figures_those_of_the_last_writing(tmp_path):
    write_run(tmp_path, "rbft", 12, stages=ALL, words="it turns")
    found = digested(tmp_path)
    assert (found.answers["lift/0"].before, found.answers["lift/0"].after) == ("early 0", "it turns 0")
    assert found.rationales == {"agreement": 0.75, "kept": 0.75, "grounding": 0.375}


def test_a_figure_that_a_run_lacks_is_missing_and_not_averaged_away(tmp_path):
    write_run(tmp_path, "sft", 12)
    folder = write_run(tmp_path, "sft", 12, seed=1)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({key: value for key, value in metrics.items() if "ece" not in key}))
    assert digested(tmp_path).mean("test/ece") is None
    assert mean_of([]) is None
    assert mean_of([1, True]) is None
    assert mean_of([1, 2.0]) == 1.5


def test_an_unreadable_video_has_no_probabilities_and_is_wrong(tmp_path):
    folder = write_run(tmp_path, "sft", 24)
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    row = json.loads(lines[0]) | {"predicted": None, "probabilities": [], "log_likelihoods": []}
    (folder / "predictions.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    found = digested(tmp_path)
    assert found.answers["lift/0"].chances is None
    assert found.answers["lift/0"].wrong
    assert found.recalls["lift"] == (7, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "other"},
        {"predicted": "other"},
        {"probabilities": [1.0]},
        {"probabilities": ["1", 0, 0]},
        {"probabilities": [2.0, 0, 0]},
        {"calibrated": [1.0]},
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, change):
    folder = write_run(tmp_path, "sft", 12)
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    row = json.loads(lines[3]) | change
    (folder / "predictions.jsonl").write_text("\n".join([*lines[:3], json.dumps(row)]) + "\n")
    with pytest.raises(DataError, match=r"predictions.jsonl: .*lift/3"):
        digested(tmp_path)


def test_a_probability_may_be_rounded_above_1(tmp_path):
    run = write_run(tmp_path, "sft", 12)
    rows = read_predictions(run / "predictions.jsonl")
    write_predictions(run / "predictions.jsonl", [replace(rows[0], probabilities=(1 + 2**-52, 0.0, 0.0)), *rows[1:]])
    assert len(read_checked(run / "predictions.jsonl", CLASSES)) == len(rows)


def test_runs_of_other_classes_are_not_averaged(tmp_path):
    write_run(tmp_path, "sft", 12)
    write_run(tmp_path, "sft", 12, seed=1, classes=(*CLASSES, "fall"))
    with pytest.raises(DataError, match="other classes"):
        digested(tmp_path)


def test_a_finished_run_without_predictions_is_named(tmp_path):
    (write_run(tmp_path, "sft", 12) / "predictions.jsonl").unlink()
    with pytest.raises(DataError, match=r"predictions\.jsonl is missing"):
        digested(tmp_path)
