"""Which labels look wrong: confident learning on probabilities of a classifier that has not seen the clip."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbft.evaluation.linear_probe import choose_strength, fit_probe

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
_FOLDS = 10
_STRENGTHS = (10.0, 1.0, 0.1, 0.01)  # L2 penalties; few, because each is fitted once a fold


@dataclass(frozen=True)
class Doubt:
    """A label that looks wrong.

    Args:
        place: place of the clip in what was looked at.
        other: number of the class that the clip rather looks like.
        given_probability: probability of the label that it has.
        other_probability: probability of the other class.
    """

    place: int
    other: int
    given_probability: float
    other_probability: float


def find_doubts(probabilities: Array, labels: Ints) -> list[Doubt]:
    """Labels that look wrong, the least likely first: confident learning (Northcutt et al., arXiv 1911.00068).

    A clip counts to a class if its probability of it reaches the mean probability that clips with this label have of
    it, so that a class a classifier is never sure about is not at a disadvantage; of several such classes to the
    likeliest. A label is doubted where that class is another one than its own (the off-diagonal of the confident
    joint), and the classifier's answer is another one, too. cleanlab does the same as
    `find_label_issues(filter_by="confident_learning")`; it is not used because it brings pandas along for this formula.

    Args:
        probabilities: (N, C), each row by a classifier that was not fitted to this clip.
        labels: (N,) class of each clip as it is labelled.
    """
    rows = np.arange(len(labels))
    present = np.unique(labels)
    # a class that nobody has been given has no mean, and no clip can count to it
    bars = np.full(probabilities.shape[1], np.inf)
    for label in present:
        bars[label] = probabilities[labels == label, label].mean()
    reaching = probabilities >= bars - 1e-12
    counted = np.where(reaching, probabilities, -np.inf).argmax(1)
    doubted = reaching.any(1) & (counted != labels) & (probabilities.argmax(1) != labels)
    doubts = [
        Doubt(
            int(row), int(counted[row]), float(probabilities[row, labels[row]]), float(probabilities[row, counted[row]])
        )
        for row in rows[doubted]
    ]
    return sorted(doubts, key=lambda doubt: (doubt.given_probability, -doubt.other_probability))


def cross_fitted(features: Array, labels: Ints, classes: int, groups: Sequence[str | None], seed: int = 0) -> Array:
    """Probabilities (N, C) of a linear classifier on visual features that was fitted to the other clips.

    Folds keep groups whole and classes even. A clip whose class has no clip outside of its fold cannot be judged; its
    row is not a number.

    Args:
        features: (N, H).
        labels: (N,) class of each clip.
        classes: number of classes C.
        groups: group of each clip; None: it stands alone.
        seed: seed of the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = [f"{place}" if group is None else f"group {group}" for place, group in enumerate(groups)]
    number = min(_FOLDS, len(set(names)), int(np.bincount(labels).max(initial=0)))
    found = np.full((len(labels), classes), np.nan)
    if number < 2 or len(np.unique(labels)) < 2:
        return found
    strength = choose_strength(features, labels, classes, strengths=_STRENGTHS, groups=names).value
    with warnings.catch_warnings():
        # a class with fewer clips than folds is in some of them only, as it has to be
        warnings.filterwarnings("ignore", message="The least populated class")
        folds = list(StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(features, labels, names))
    for fitted, held in folds:
        known = np.unique(labels[fitted])
        if len(known) < 2:
            continue
        judged = held[np.isin(labels[held], known)]
        if len(judged):
            probe = fit_probe(features[fitted], labels[fitted], classes, strength)
            found[judged] = np.exp(probe.log_probabilities(features[judged]))
    return found
