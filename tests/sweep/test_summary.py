"""What a sweep says of its methods: means over what is finished, pairs with the baseline, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from rbft.evaluation.comparison import Group, interval_words
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.evaluation.statistics import McNemar, mean_interval, paired_difference
from rbft.report.groups_table import print_groups
from rbft.runs.stage_record import StageRecord, write_record
from rbft.sweep.grid import Sweep, read_sweep
from rbft.sweep.progress import Progress
from rbft.sweep.summary import summarise, to_json

VIDEOS = 20
RIGHT = {  # of 20 videos, by method, shots and seed
    "sft": {4: (10, 12, 11), 16: (14, 15, 16)},
    "rbft": {4: (13, 14, 14), 16: (15, 15, 17)},
}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    (tmp_path / "tiny.yaml").write_text("stages: {write: {}, rationale: {}, classification: {}, test: {}}")
    content = {
        "experiment": "tiny.yaml",
        "grid": {"method": ["sft", "rbft"], "data.shots": [4, 16], "seed_everything": [0, 1, 2]},
        "baseline": {"method": "sft"},
        "flags": {"run_root": str(tmp_path / "runs")},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_sweep(str(tmp_path / "grid.yaml"), [], {})


def finish(sweep: Sweep) -> list[Progress]:
    """Runs with as many videos right as the table says, the first ones."""
    found = []
    for run in sweep.runs:
        right = RIGHT[run.point["method"]][run.point["data.shots"]][run.point["seed_everything"]]
        run.folder.mkdir(parents=True)
        (run.folder / "metrics.json").write_text(json.dumps({"test/accuracy": right / VIDEOS}))
        rows = [Prediction(str(n), f"{n}.mp4", "a", "a" if n < right else "b", (), ()) for n in range(VIDEOS)]
        write_predictions(run.folder / "predictions.jsonl", rows)
        found.append(Progress(run, "finished"))
    return found


def test_groups_and_comparisons(sweep):
    groups = {(group.point["method"], group.point["data.shots"]): group for group in summarise(sweep, finish(sweep))}
    assert list(groups) == [("sft", 4), ("sft", 16), ("rbft", 4), ("rbft", 16)]
    for (method, shots), group in groups.items():
        assert group.accuracy is not None
        assert group.accuracy.mean == pytest.approx(sum(RIGHT[method][shots]) / 3 / VIDEOS)
        assert (group.accuracy.count, group.runs) == (3, 3)
        assert (group.comparison is None) == (method == "sft"), "the baseline is compared with nothing"
    few, many = groups["rbft", 4].comparison, groups["rbft", 16].comparison
    assert few is not None and many is not None
    expected = paired_difference([13 / 20, 14 / 20, 14 / 20], [10 / 20, 12 / 20, 11 / 20])
    assert few.difference == expected
    # of the two p-values 1/4 and 2/4 the smaller counts twice
    assert (expected.p_permutation, many.difference.p_permutation) == (0.25, 0.5)
    assert (few.p, many.p) == (0.5, 0.5)
    assert few.tests == tuple(McNemar(extra, 0, VIDEOS, pytest.approx(2.0 ** (1 - extra))) for extra in (3, 2, 3))
    assert few.detectable is not None and 0 < few.detectable < 1
    assert any("test videos are too few" in text for text in many.cautions)


def test_what_is_missing_is_told_and_never_averaged_away(sweep):
    progress = finish(sweep)
    for one in progress:
        if one.run.point == {"method": "sft", "data.shots": 4, "seed_everything": 0}:
            one.state = "failed"
        if one.run.point["method"] == "rbft" and one.run.point["data.shots"] == 16:
            one.state = "waiting"
    groups = summarise(sweep, progress)
    console = Console(width=140, record=True, color_system=None)
    print_groups(groups, sweep.baseline, sweep.name, console)
    lines = console.export_text().splitlines()
    assert [line.split()[2] for line in lines[1:5]] == ["2/3", "3/3", "3/3", "0/3"]
    assert "missing" in lines[4]
    comparison = groups[2].comparison
    assert comparison is not None and comparison.difference.difference.count == 2
    assert any(line.startswith("caution, rbft data.shots=4: 2 pairs of runs: fewer than 3") for line in lines)
    assert groups[3].comparison is None


def test_no_interval_of_an_accuracy_leaves_what_accuracies_can_be():
    assert interval_words(mean_interval([0.9, 0.8])) == "21.5% to 100.0%"
    assert interval_words(mean_interval([0.1, 0.2])) == "0.0% to 78.5%"
    assert interval_words(mean_interval([0.1, -0.2]), points=True) == "-195.6 to +185.6"


def test_labelled_videos_are_counted_in_full():
    words = [Group({}, None, 0, None, labelled=count).labelled_words for count in (None, 16.0, 12.5, 168913.0)]
    assert words == ["-", "16", "12.5", "168913"]


def test_a_narrow_terminal_gets_two_tables(sweep):
    groups = summarise(sweep, finish(sweep))
    console = Console(width=80, record=True, color_system=None)
    print_groups(groups, sweep.baseline, sweep.name, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["accuracy", "runs", "mean"] and lines[5].split()[:3] == ["difference", "-", "sft"]
    assert lines[8].split()[:4] == ["rbft", "data.shots=4", "+13.3", "+6.2"], lines[8]


def test_draws_are_replicates_too_and_one_pair_is_not_tested(tmp_path):
    (tmp_path / "tiny.yaml").write_text("stages: {classification: {}, test: {}}")
    content = {
        "experiment": "tiny.yaml",
        "flags": {"run_root": str(tmp_path / "runs")},
        "baseline": {"method": "sft"},
        "grid": {"method": ["sft", "zero_shot"], "data.draw": [0, 1]},
        "exclude": [{"method": "zero_shot", "data.draw": 1}],
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    sweep = read_sweep(str(tmp_path / "grid.yaml"), [], {})
    progress = []
    for run in sweep.runs:
        run.folder.mkdir(parents=True)
        (run.folder / "metrics.json").write_text(json.dumps({"test/accuracy": 0.5}))
        write_predictions(run.folder / "predictions.jsonl", [Prediction("0", "0.mp4", "a", "a", (), ())])
        progress.append(Progress(run, "finished"))
    sft, zero_shot = sorted(summarise(sweep, progress), key=lambda group: group.point["method"])
    assert sft.accuracy is not None and sft.accuracy.count == 2
    assert zero_shot.comparison is not None
    assert (zero_shot.comparison.p, zero_shot.comparison.detectable) == (None, None)
    assert json.loads(json.dumps(to_json([sft, zero_shot])))[1]["comparison"]["tests"][0]["videos"] == 1


def test_validation_videos_choose_what_is_tuned(tmp_path):
    (tmp_path / "tiny.yaml").write_text("stages: {classification: {}, test: {}}")
    content = {
        "experiment": "tiny.yaml",
        "flags": {"run_root": str(tmp_path / "runs")},
        "baseline": {"method": "zero_shot"},
        "grid": {"method": ["zero_shot", "sft"], "model.optim.lr": [0.0001, 0.001], "seed_everything": [0, 1]},
        "exclude": [{"method": "zero_shot", "model.optim.lr": 0.001}],
        "choose": ["model.optim.lr"],
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    sweep = read_sweep(str(tmp_path / "grid.yaml"), [], {})
    progress = []
    for run in sweep.runs:
        good = run.point["model.optim.lr"] == 0.001
        finish_one(run.folder, accuracy=0.25 if good else 0.75, validated=2 if good else 1)
        progress.append(Progress(run, "finished"))
    groups = {group.point["method"]: group for group in summarise(sweep, progress)}
    assert list(groups) == ["zero_shot", "sft"]
    assert groups["sft"].accuracy is not None and groups["sft"].accuracy.mean == 0.25, "the test has no say"
    assert groups["sft"].comparison is not None and groups["sft"].comparison.difference.difference.mean == -0.5
    assert (groups["zero_shot"].chosen, groups["sft"].chosen) == ({}, {"model.optim.lr=0.001": 2})
    console = Console(width=140, record=True, color_system=None)
    print_groups(list(groups.values()), sweep.baseline, sweep.name, console)
    assert "chosen on validation videos, sft: model.optim.lr=0.001 in 2 of 2" in console.export_text()
    next(one for one in progress if one.run.point["method"] == "sft").state = "failed"
    missing = next(group for group in summarise(sweep, progress) if group.point["method"] == "sft")
    assert missing.accuracy is not None and (missing.accuracy.count, missing.runs) == (1, 2)


def finish_one(folder: Path, accuracy: float, validated: int) -> None:
    """A run with so many of two validation videos right."""
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump({"data": {}, "method": "sft"}))
    (folder / "metrics.json").write_text(json.dumps({"test/accuracy": accuracy}))
    (folder / "labels.json").write_text(json.dumps(["a", "b"]))
    write_predictions(folder / "predictions.jsonl", [Prediction("0", "0.mp4", "a", "a", (1.0, 0.0), (0.0, 0.0))])
    rows = [
        Prediction(
            f"v{n}",
            f"v{n}.mp4",
            "a",
            "a" if n < validated else "b",
            (0.9, 0.1) if n < validated else (0.1, 0.9),
            (0.0, 0.0),
        )
        for n in range(2)
    ]
    write_predictions(folder / "test" / "validation.jsonl", rows)
    write_record(folder / "test", StageRecord("test", "test", "0", {}, {}, 1.0, {}))
