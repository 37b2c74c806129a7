"""Folds of the labelled clips for cross-fitting: every clip is answered by a model that saw nothing of its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord

MOST_FOLDS = 5


def video_folds(records: Sequence[VideoRecord], labels: LabelSet) -> NDArray[np.int64] | None:
    """The fold (N,) that holds back each labelled video, whole groups together; None where there are none."""
    truth = np.array([labels.index(record.label) for record in records], dtype=np.int64)
    return make_folds(truth, [":".join(record.source) for record in records])


def make_folds(
    labels: NDArray[np.int64], groups: Sequence[str], most: int = MOST_FOLDS, seed: int = 0
) -> NDArray[np.int64] | None:
    """The fold (N,) that holds each clip back, by scikit-learn's StratifiedGroupKFold.

    There are as many folds as the class with the fewest groups has groups, at most `most`.

    Args:
        labels: (N,) class of each clip.
        groups: group of each clip; a group is in one fold.
        most: most folds.
        seed: seed of the shuffling of groups.

    Returns:
        None where a class has clips of one group only, or where some fold would leave a class nothing to be fitted to.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.unique(np.asarray(groups), return_inverse=True)[1]
    pairs = np.unique(np.stack([labels, names]), axis=1)
    number = min(most, int(np.unique(pairs[0], return_counts=True)[1].min(initial=most)))
    if len(labels) == 0 or number < 2:
        return None
    folds = np.zeros(len(labels), dtype=np.int64)
    dealing = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(dealing.split(np.zeros(len(labels)), labels, names)):
        folds[held] = fold
    every = np.unique(labels)
    complete = all(np.isin(every, labels[folds != fold]).all() for fold in range(number))
    return folds if complete else None
