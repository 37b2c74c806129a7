"""The figures of a test: accuracy with its interval, balanced accuracy, macro-F1, calibration, AUROC, floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from rbft.data.labels import LabelSet
from rbft.evaluation.calibration import BINS
from rbft.evaluation.counts import confusion_counts
from rbft.evaluation.predictions import Prediction

Metrics = dict[str, float | int | list[float] | None]


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of an accuracy (Wilson 1927, as in scipy.stats.binomtest)."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _calibrated_error(predictions: Sequence[Prediction], labels: LabelSet) -> float | None:
    """Expected calibration error of the calibrated probabilities; None where there are none."""
    calibrated = [replace(p, probabilities=p.calibrated) for p in predictions if p.calibrated]
    scores, truth = _tensors(calibrated, labels)
    return float(multiclass_calibration_error(scores, truth, len(labels), n_bins=BINS)) if calibrated else None


def _tensors(predictions: Sequence[Prediction], labels: LabelSet) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and labels (N,) of the videos that were read."""
    read = [prediction for prediction in predictions if prediction.predicted is not None]
    scores = torch.tensor([prediction.probabilities for prediction in read], dtype=torch.float64)
    truth = torch.tensor([labels.index(prediction.label) for prediction in read])
    return scores.reshape(len(read), len(labels)), truth


def confusion(predictions: Sequence[Prediction], labels: LabelSet) -> Tensor:
    """Counts (C, C) as of `confusion_counts`."""
    return torch.from_numpy(confusion_counts(predictions, labels.names))


def test_metrics(predictions: Sequence[Prediction], labels: LabelSet, train_labels: Sequence[str]) -> Metrics:
    """All figures of a test.

    Unreadable videos count as wrong in accuracy, balanced accuracy and top-5 accuracy; macro-F1, calibration and AUROC
    are of the videos that were read. A figure that cannot be computed is None, never 0.

    Args:
        predictions: One per test video.
        labels: The closed set.
        train_labels: Labels of the training videos, for the majority floor; there is none where there are none.

    Returns:
        Figures in [0, 1] by their names in metrics.json; counts as whole numbers.
    """
    total = len(predictions)
    scores, truth = _tensors(predictions, labels)
    unreadable = total - len(truth)
    correct = sum(prediction.predicted == prediction.label for prediction in predictions)
    per_class = Counter(prediction.label for prediction in predictions)
    hits = Counter(prediction.label for prediction in predictions if prediction.predicted == prediction.label)
    frequent = next((name for name, _ in Counter(train_labels).most_common(1)), None)
    classes, read = len(labels), len(truth) > 0
    top5 = multiclass_accuracy(scores, truth, classes, average="micro", top_k=min(5, classes)) if read else 0.0
    present = sorted(set(truth.tolist()))
    auroc = float(multiclass_auroc(scores, truth, classes, average=None)[present].mean()) if len(present) > 1 else None
    modes = sorted({mode for prediction in predictions for mode in prediction.answers})
    return {
        "test/accuracy": correct / total,
        "test/balanced_accuracy": sum(hits[name] / count for name, count in per_class.items()) / len(per_class),
        "test/macro_f1": float(multiclass_f1_score(scores, truth, classes, average="macro")) if read else None,
        "test/top5_accuracy": float(top5) * (total - unreadable) / total,
        "test/ece": float(multiclass_calibration_error(scores, truth, classes, n_bins=BINS)) if read else None,
        "test/ece_calibrated": _calibrated_error(predictions, labels),
        "test/auroc": auroc,
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
    scores, truth = _tensors(predictions, labels)
    right = scores.gather(1, truth.unsqueeze(1)).clamp(min=1e-300).log()
    return {
        "val/nll": float(-right.mean()),
        "val/accuracy": float(multiclass_accuracy(scores, truth, len(labels), average="micro")),
        "val/macro_f1": float(multiclass_f1_score(scores, truth, len(labels), average="macro")),
    }
