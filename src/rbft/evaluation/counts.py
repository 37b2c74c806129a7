"""Counts of predictions, without torch: what is taken for what, and how much of each class is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rbft.evaluation.predictions import Prediction


def confusion_counts(predictions: Sequence[Prediction], names: Sequence[str]) -> NDArray[np.int64]:
    """Counts (C, C): rows are true classes, columns predicted ones; unreadable videos are in neither."""
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for prediction in predictions:
        if prediction.predicted is not None:
            counts[place[prediction.label], place[prediction.predicted]] += 1
    return counts


def recalls(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each class how many test videos are right, and how many there are, unreadable ones included."""
    right, total = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for prediction in predictions:
        total[prediction.label] += 1
        right[prediction.label] += prediction.predicted == prediction.label
    return {name: (right[name], total[name]) for name in names}
