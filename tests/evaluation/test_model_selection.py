"""Tuned settings are chosen by validation videos: each seed for itself, never by the test, among finished runs only."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbft.errors import DataError
from rbft.evaluation.comparison import Member, compare
from rbft.evaluation.model_selection import choose_runs, without
from rbft.evaluation.predictions import Prediction, write_predictions

LABELS = ("fall", "walk")
KEYS = ["model.optim.lr"]


def member(
    folder: Path,
    lr: float,
    right: int,
    *,
    seed: int = 0,
    sure: float = 0.8,
    test: float | None = 0.5,
    method: str = "sft",
    videos: int = 4,
) -> Member:
    """A run that is right on the first of its validation videos."""
    rows = []
    for number in range(videos):
        chances = (sure, 1 - sure) if number < right else (1 - sure, sure)
        rows.append(Prediction(str(number), f"{number}.mp4", "fall", LABELS[number >= right], chances, (0.0, 0.0)))
    path = folder / f"{method}-{lr}-{seed}" / "validation.jsonl"
    path.parent.mkdir(parents=True)
    write_predictions(path, rows)
    point = {"method": method, "model.optim.lr": lr, "seed_everything": seed}
    return Member(point, test, path.parent / "predictions.jsonl", path, LABELS)


def test_each_seed_takes_the_run_with_most_validation_videos_right_whatever_the_test_says(tmp_path):
    runs = [
        member(tmp_path, 1e-4, 2, test=0.9),
        member(tmp_path, 1e-3, 3, test=0.1),
        member(tmp_path, 1e-4, 4, seed=1, test=0.2),
        member(tmp_path, 1e-3, 3, seed=1, test=0.8),
    ]
    assert choose_runs(runs, KEYS) == [(1, {"model.optim.lr": 1e-3}), (2, {"model.optim.lr": 1e-4})]


def test_of_equals_the_one_that_gives_the_right_class_most(tmp_path):
    runs = [member(tmp_path, 1e-4, 4, sure=0.6), member(tmp_path, 1e-3, 4, sure=0.9)]
    assert choose_runs(runs, KEYS)[0][0] == 1


def test_nothing_is_chosen_while_a_rival_is_missing(tmp_path):
    runs = [member(tmp_path, 1e-4, 4), member(tmp_path, 1e-3, 3, test=None)]
    assert choose_runs(runs, KEYS) == [(1, {})], "the missing one stands for both"


def test_other_settings_methods_and_seeds_are_no_rivals(tmp_path):
    runs = [member(tmp_path, 1e-3, 3), member(tmp_path, 1e-3, 4, seed=1), member(tmp_path, 1e-3, 2, method="rbft")]
    assert choose_runs(runs, KEYS) == [(0, {}), (1, {}), (2, {})]
    assert [place for place, _ in choose_runs(runs, [])] == [0, 1, 2]


def test_a_run_without_validation_videos_or_with_others_cannot_be_chosen(tmp_path):
    one, two = member(tmp_path, 1e-4, 4), member(tmp_path, 1e-3, 3, videos=5)
    with pytest.raises(DataError, match="their videos differ"):
        choose_runs([one, two], KEYS)
    assert two.validation is not None
    two.validation.unlink()
    with pytest.raises(DataError, match=r"sft-0\.001-0.*not scored on validation videos.*data\.val_shots"):
        choose_runs([one, two], KEYS)


def test_classes_that_are_not_the_runs_are_refused(tmp_path):
    one, two = member(tmp_path, 1e-4, 4), member(tmp_path, 1e-3, 3)
    strange = Member(two.point, two.accuracy, two.predictions, two.validation, ("walk",))
    with pytest.raises(DataError, match=r"validation\.jsonl: its classes are not those"):
        choose_runs([one, strange], KEYS)


def test_a_group_tells_how_often_what_was_chosen(tmp_path):
    runs = [
        member(tmp_path, lr, right, seed=seed)
        for seed, pair in enumerate([(3, 2), (2, 4), (1, 4)])
        for lr, right in zip((1e-4, 1e-3), pair, strict=True)
    ]
    kept = [
        Member(without(runs[place].point, KEYS), 0.5, runs[place].predictions, chosen=chosen)
        for place, chosen in choose_runs(runs, KEYS)
    ]
    (group,) = compare(kept, None, ["seed_everything"])
    assert group.runs == 3
    assert group.chosen_words == "model.optim.lr=0.001 in 2 of 3, model.optim.lr=0.0001 in 1 of 3"
