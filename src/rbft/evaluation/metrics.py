"""The figures of a test: accuracy with its interval, balanced accuracy, macro-F1, calibration, AUROC, floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rbft.data.labels import LabelSet
from rbft.evaluation.calibration import expected_error, reliability
from rbft.evaluation.predictions import Prediction

Metrics = dict[str, float | int | list[float] | None]
_TOP = 5


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of an accuracy (Wilson 1927, as in scipy.stats.binomtest)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _arrays(predictions: Sequence[Prediction], labels: LabelSet) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (N, C) and classes (N,) of the videos that were read."""
    read = [prediction for prediction in predictions if prediction.predicted is not None]
    scores = np.array([prediction.probabilities for prediction in read], dtype=np.float64)
    truth = np.array([labels.index(prediction.label) for prediction in read], dtype=np.int64)
    return scores.reshape(len(read), len(labels)), truth


def _macro_f1(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Mean F1 of the classes that are true or predicted for a video."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, scores.argmax(1), average="macro"))


def _macro_auroc(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float | None:
    """Mean AUROC of each class that has videos against the rest; None where there are fewer than two."""
    from sklearn.metrics import roc_auc_score

    present = np.unique(truth)
    if len(present) < 2:
        return None
    return float(roc_auc_score(truth[:, None] == present, scores[:, present], average="macro"))


def test_metrics(predictions: Sequence[Prediction], labels: LabelSet, train_labels: Sequence[str]) -> Metrics:
    """All figures of a test.

    Unreadable videos count as wrong in accuracy, balanced accuracy and top-5 accuracy; macro-F1, calibration and AUROC
    are of the videos that were read. A figure that cannot be computed is None, never 0.

    Args:
        predictions: one per test video.
        labels: the closed set.
        train_labels: labels of the training videos, for the majority floor; without any there is no such floor.

    Returns:
        Figures in [0, 1] by their names in metrics.json; counts as whole numbers.
    """
    total = len(predictions)
    scores, truth = _arrays(predictions, labels)
    unreadable = total - len(truth)
    correct = sum(prediction.predicted == prediction.label for prediction in predictions)
    per_class = Counter(prediction.label for prediction in predictions)
    hits = Counter(prediction.label for prediction in predictions if prediction.predicted == prediction.label)
    frequent = next((name for name, _ in Counter(train_labels).most_common(1)), None)
    classes, read = len(labels), len(truth) > 0
    # of equal probabilities the class that comes first in the order of the labels, as a prediction takes it
    likeliest = np.argsort(-scores, axis=1, kind="stable")[:, :_TOP]
    raw = [replace(prediction, calibrated=()) for prediction in predictions]
    calibrated = [prediction for prediction in predictions if prediction.calibrated]
    modes = sorted({mode for prediction in predictions for mode in prediction.answers})
    return {
        "test/accuracy": correct / total,
        "test/balanced_accuracy": sum(hits[name] / count for name, count in per_class.items()) / len(per_class),
        "test/macro_f1": _macro_f1(scores, truth) if read else None,
        "test/top5_accuracy": int((likeliest == truth[:, None]).sum()) / total,
        "test/ece": expected_error(reliability(raw, labels.names)) if read else None,
        "test/ece_calibrated": expected_error(reliability(calibrated, labels.names)) if calibrated else None,
        "test/auroc": _macro_auroc(scores, truth),
        "test/accuracy_ci95": list(accuracy_interval(correct, total)),
        "test/num_videos": total,
        "test/num_unreadable": unreadable,
        "chance/accuracy": 1 / classes,
        "majority/accuracy": None if frequent is None else per_class[frequent] / total,
        **{f"test/accuracy_{mode}": _accuracy_of(mode, predictions, labels) for mode in modes},
    }


def _accuracy_of(mode: str, predictions: Sequence[Prediction], labels: LabelSet) -> float:
    """Accuracy of one way of answering; a video that it gives no answer for counts as wrong."""
    answers = [(prediction.answers.get(mode, ()), prediction.label) for prediction in predictions]
    right = sum(len(chances) > 0 and labels.names[chances.index(max(chances))] == label for chances, label in answers)
    return right / len(predictions)


def validation_metrics(predictions: Sequence[Prediction], labels: LabelSet) -> dict[str, float]:
    """What is followed while training: accuracy, macro-F1, and the mean negative log-probability of the right class."""
    scores, truth = _arrays(predictions, labels)
    right = np.log(np.maximum(scores[np.arange(len(truth)), truth], 1e-300))
    return {
        "val/nll": float(-right.mean()),
        "val/accuracy": float((scores.argmax(1) == truth).mean()),
        "val/macro_f1": _macro_f1(scores, truth),
    }
