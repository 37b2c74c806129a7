"""Choosing a penalty out of fold, then fitting all labelled clips: what the classifiers beside the model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rbft.errors import ConfigError
from rbft.evaluation.folds import make_folds

Array = NDArray[np.float64]
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class CrossFitted(Generic[Fitted]):
    """A classifier of all labelled clips, and what one that had not seen a clip says of it at the same strength.

    Args:
        fitted: classifier that is fitted to all labelled clips.
        strength: strength of the L2 penalty.
        chosen_on: `folds` of the labelled clips, or `nothing`.
        probabilities: probability of each class (N, C) for each labelled clip; None where there are no folds.
        accuracy: share of the clips whose likeliest class is right; None where there are no folds.
        nll: mean negative log-probability of the right class.
    """

    fitted: Fitted
    strength: float
    chosen_on: str
    probabilities: Array | None = None
    accuracy: float | None = None
    nll: float | None = None


def cross_fit(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    fit: Callable[[Sequence[int], float], Fitted],
    answer: Callable[[Fitted, Sequence[int]], Array],
    strengths: Sequence[float],
    unchosen: float,
) -> CrossFitted[Fitted]:
    """Choose the penalty on folds of the labelled clips, and fit all of them with it.

    Args:
        labels: (N,) class of each of N labelled clips.
        groups: group of each clip; clips of one group are never fitted to and answered in one fold.
        classes: number of classes C.
        fit: function that fits a classifier to the clips of these numbers with a penalty of this strength.
        answer: function that gives the probability of each class (n, C) for the clips of these numbers.
        strengths: penalties to try, the strongest first; of equally good ones the strongest is taken.
        unchosen: penalty where a class has clips of one group only, so that there are no folds.

    Returns:
        The strength that is right most often out of fold (of equals, the one with the highest likelihood), with the
        classifier and what is said of each clip out of fold.
    """
    if not strengths:
        raise ConfigError("strengths: name at least one.")
    everything = range(len(labels))
    folds = make_folds(labels, groups)
    if folds is None:
        return CrossFitted(fit(everything, unchosen), unchosen, "nothing")
    tried: list[tuple[float, float, float, Array]] = []
    for strength in strengths:
        chances = np.zeros((len(labels), classes))
        for number in range(folds.max() + 1):
            rest, held = (np.flatnonzero(part).tolist() for part in (folds != number, folds == number))
            chances[held] = answer(fit(rest, strength), held)
        likely = chances[np.arange(len(labels)), labels]
        right, nll = float((chances.argmax(1) == labels).mean()), -float(np.log(np.maximum(likely, 1e-300)).mean())
        tried.append((right, nll, strength, chances))
    right, nll, strength, chances = max(tried, key=lambda result: (result[0], -result[1]))
    return CrossFitted(fit(everything, strength), strength, "folds", chances, right, nll)
