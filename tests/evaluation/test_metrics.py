"""Figures of a test against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rbft.data.labels import LabelSet
from rbft.evaluation import metrics
from rbft.evaluation.predictions import Prediction

LABELS = LabelSet(("a", "b", "c"))


def predictions(rows: list[tuple[str, tuple[float, ...] | None]], labels: LabelSet = LABELS) -> list[Prediction]:
    """(true class, probabilities); None stands for a video that could not be read."""
    made = []
    for number, (label, chances) in enumerate(rows):
        predicted = None if chances is None else labels.names[chances.index(max(chances))]
        logs = () if chances is None else tuple(math.log(max(p, 1e-9)) for p in chances)
        made.append(Prediction(str(number), f"{number}.mp4", label, predicted, chances or (), logs))
    return made


# six videos: a is right twice of three, b once of two, c never
ROWS = [
    ("a", (0.8, 0.1, 0.1)),
    ("a", (0.6, 0.3, 0.1)),
    ("a", (0.2, 0.7, 0.1)),
    ("b", (0.3, 0.6, 0.1)),
    ("b", (0.5, 0.4, 0.1)),
    ("c", (0.1, 0.7, 0.2)),
]
TRAIN = ["b", "b", "a", "c"]


def test_figures_by_hand():
    found = metrics.test_metrics(predictions(ROWS), LABELS, TRAIN)
    assert found["test/accuracy"] == 0.5
    assert found["test/balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # a: 2 of 3 predicted and 2 of 3 true; b: 1 of 3 predicted and 1 of 2 true; c: never predicted
    assert found["test/macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert found["test/top5_accuracy"] == 1.0
    assert found["test/num_videos"] == 6
    assert found["test/num_unreadable"] == 0
    assert found["chance/accuracy"] == pytest.approx(1 / 3)
    # the most frequent class of the training videos, not of the test videos
    assert found["majority/accuracy"] == pytest.approx(2 / 6)


def test_keys_are_the_contract():
    assert set(metrics.test_metrics(predictions(ROWS), LABELS, TRAIN)) == {
        "test/accuracy",
        "test/balanced_accuracy",
        "test/macro_f1",
        "test/top5_accuracy",
        "test/ece",
        "test/ece_calibrated",
        "test/auroc",
        "test/accuracy_ci95",
        "test/num_videos",
        "test/num_unreadable",
        "chance/accuracy",
        "majority/accuracy",
    }


def ece(rows: list[tuple[str, tuple[float, ...]]], bins: int = 15) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599) as the paper writes it."""
    top = np.array([max(chances) for _, chances in rows])
    right = np.array([LABELS.names[chances.index(max(chances))] == label for label, chances in rows])
    place = np.minimum((top * bins).astype(int), bins - 1)
    return float(
        sum(abs(right[place == b].mean() - top[place == b].mean()) * (place == b).mean() for b in set(place.tolist()))
    )


def auroc(rows: list[tuple[str, tuple[float, ...]]]) -> float:
    """Chance that a video of the class scores above one that is not of it; ties count half; mean of the classes."""
    areas = []
    for column, name in enumerate(LABELS.names):
        own = [chances[column] for label, chances in rows if label == name]
        rest = [chances[column] for label, chances in rows if label != name]
        if own:
            areas.append(np.mean([(x > y) + 0.5 * (x == y) for x in own for y in rest]))
    return float(np.mean(areas))


def test_calibration_and_auroc_against_their_definitions():
    found = metrics.test_metrics(predictions(ROWS), LABELS, TRAIN)
    assert found["test/ece"] == pytest.approx(ece(ROWS), abs=1e-6)
    assert found["test/auroc"] == pytest.approx(auroc(ROWS), abs=1e-6)
    rng = np.random.default_rng(0)
    rows = [(str(rng.choice(LABELS.names)), tuple(rng.dirichlet([0.5, 0.7, 1.0]).tolist())) for _ in range(60)]
    found = metrics.test_metrics(predictions(rows), LABELS, TRAIN)
    assert found["test/ece"] == pytest.approx(ece(rows), abs=1e-5)
    assert found["test/auroc"] == pytest.approx(auroc(rows), abs=1e-6)


def test_unreadable_videos_count_as_wrong_and_are_counted():
    found = metrics.test_metrics(predictions([*ROWS, ("a", None), ("b", None)]), LABELS, TRAIN)
    assert found["test/num_videos"] == 8
    assert found["test/num_unreadable"] == 2
    assert found["test/accuracy"] == 3 / 8
    assert found["test/balanced_accuracy"] == pytest.approx((2 / 4 + 1 / 3 + 0) / 3)
    assert found["test/top5_accuracy"] == 6 / 8
    assert found["test/accuracy_ci95"] == pytest.approx(wilson(3, 8))
    read = metrics.test_metrics(predictions(ROWS), LABELS, TRAIN)
    for key in ("test/macro_f1", "test/ece", "test/auroc"):
        assert found[key] == read[key], key


def test_nothing_readable_is_zero_right_and_otherwise_not_defined():
    found = metrics.test_metrics(predictions([("a", None), ("b", None)]), LABELS, TRAIN)
    assert (found["test/accuracy"], found["test/top5_accuracy"]) == (0.0, 0.0)
    assert [found[key] for key in ("test/macro_f1", "test/ece", "test/auroc")] == [None] * 3


def test_without_training_videos_there_is_no_majority():
    found = metrics.test_metrics(predictions(ROWS[:1]), LABELS, [])
    assert found["majority/accuracy"] is None
    assert found["test/num_videos"] == 1
    assert found["chance/accuracy"] == pytest.approx(1 / 3)


def test_a_class_without_test_videos_does_not_lower_balanced_accuracy_or_auroc():
    rows = [row for row in ROWS if row[0] != "c"]
    found = metrics.test_metrics(predictions(rows), LABELS, TRAIN)
    assert found["test/balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["test/auroc"] == pytest.approx(auroc(rows), abs=1e-6)


def test_auroc_of_a_single_class_is_not_defined():
    found = metrics.test_metrics(predictions([row for row in ROWS if row[0] == "a"]), LABELS, TRAIN)
    assert found["test/auroc"] is None
    assert found["test/accuracy"] == pytest.approx(2 / 3)


def test_top5_among_many_classes():
    labels = LabelSet(tuple("abcdefg"))
    chances = (0.25, 0.2, 0.18, 0.15, 0.12, 0.06, 0.04)
    found = metrics.test_metrics(predictions([(name, chances) for name in "aefg"], labels), labels, ["a"])
    assert found["test/top5_accuracy"] == 0.5
    assert found["test/accuracy"] == 0.25


def wilson(correct: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    share, bottom = correct / total, 1 + z * z / total
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - reach) / bottom, (middle + reach) / bottom


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (7, 10), (433, 1000)])
def test_interval_is_wilsons(correct, total):
    low, high = metrics.accuracy_interval(correct, total)
    assert (low, high) == pytest.approx(wilson(correct, total), abs=1e-9)
    assert 0 <= low <= correct / total <= high <= 1


def test_validation_figures_are_those_of_a_test():
    found = metrics.validation_metrics(predictions(ROWS), LABELS)
    whole = metrics.test_metrics(predictions(ROWS), LABELS, TRAIN)
    right = [row.probabilities[LABELS.index(row.label)] for row in predictions(ROWS)]
    nll = -sum(math.log(chance) for chance in right) / len(right)
    same = {"val/accuracy": whole["test/accuracy"], "val/macro_f1": whole["test/macro_f1"]}
    assert found == pytest.approx({"val/nll": nll, **same})
