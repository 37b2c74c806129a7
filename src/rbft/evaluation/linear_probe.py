"""A linear probe: multinomial logistic regression on fixed features, as a control for what fine-tuning adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rbft.errors import ModelError
from rbft.evaluation.cross_fit import CrossFitted, cross_fit

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Array = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(float(10.0**power) for power in range(2, -7, -1))
"""Strengths of the L2 penalty that are tried, the strongest first."""
UNCHOSEN = 1e-2
"""The strength where there is nothing to choose it by: no validation clips, and one training clip a class."""
MOST_FOLDS = 10
UNSEEN = -20.0
"""Log-probability of a class without a training clip."""
_STEPS = 5000
_TOLERANCE = 1e-9  # of the gradient


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Args:
        pipeline: standardises features, turns them into the span of the training clips, and scores the classes that
            have training clips.
        present: indices of those classes.
        classes: number of all classes C.
    """

    pipeline: Pipeline
    present: NDArray[np.int64]
    classes: int

    def log_probabilities(self, features: Array | Sequence[str]) -> Array:
        """Log-probability of each class (N, C) for features (N, H), or for what else the pipeline turns into these.

        A class without a training clip gets about `UNSEEN`.
        """
        logs = np.full((len(features), self.classes), UNSEEN)
        # sklearn's own log-probabilities are logarithms of probabilities: minus infinity far from the training clips
        scores = self.pipeline.decision_function(features)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        logs[:, self.present] = special.log_softmax(scores, axis=1)
        return special.log_softmax(logs, axis=1)


@dataclass(frozen=True)
class Strength:
    """The chosen strength of the L2 penalty.

    Args:
        value: lambda in `fit_probe`.
        chosen_on: `validation`, `folds` of the training clips, or `nothing`.
        accuracy: accuracy on the clips it was chosen on; None where it was chosen on nothing.
        nll: mean negative log-probability of the right class on these clips.
    """

    value: float
    chosen_on: str
    accuracy: float | None = None
    nll: float | None = None


def fit_probe(features: Array, labels: NDArray[np.int64], classes: int, strength: float) -> LinearProbe:
    """Fit a probe (Alain and Bengio, arXiv 1610.01644) by Newton's method in double precision.

    Minimises the mean negative log-likelihood + strength / 2 * |weights|^2 over standardised features; the bias is not
    penalised. The optimum lies in the span of the training clips, so it is sought there, which is the same and far
    smaller where clips are few.

    Args:
        features: (N, H), one row a training clip.
        labels: (N,) class of each; at least two classes have clips.
        classes: number of classes C; one without a training clip gets little probability, not none.
        strength: strength of the penalty, above 0.

    Raises:
        ModelError: a feature is not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not np.isfinite(features).all():
        raise ModelError(
            "visual features of a training clip are not finite, so nothing can be fitted to them; load "
            "the model in another precision with model.dtype, for example float32."
        )
    present = np.unique(labels)
    # sklearn sums the loss, and of two classes it fits the difference of their weights: twice the squared norm of both
    inverse = (2 if len(present) == 2 else 1) / (strength * len(labels))
    classifier = LogisticRegression(C=inverse, solver="newton-cg", tol=_TOLERANCE, max_iter=_STEPS)
    pipeline = make_pipeline(StandardScaler(), PCA(svd_solver="full"), classifier)
    # PCA also states shares of the variance, which clips that are all alike have not
    with np.errstate(invalid="ignore"):
        pipeline.fit(features, labels)
    return LinearProbe(pipeline, present, classes)


def cross_fit_features(
    features: Array,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> CrossFitted[LinearProbe]:
    """Choose the penalty on folds of the labelled clips, and fit all of them; see `rbft.evaluation.cross_fit`.

    Args:
        features: (N, H), one row a labelled clip.
        labels: (N,) class of each.
        groups: group of each clip.
        classes: number of classes C.
        strengths: penalties to try, the strongest first.

    Raises:
        ModelError: A feature is not finite.
    """

    def fit(rows: Sequence[int], strength: float) -> LinearProbe:
        return fit_probe(features[rows], labels[rows], classes, strength)

    def answer(probe: LinearProbe, rows: Sequence[int]) -> Array:
        return np.exp(probe.log_probabilities(features[rows]))

    return cross_fit(labels, groups, classes, fit, answer, strengths, UNCHOSEN)


def choose_strength(
    features: Array,
    labels: NDArray[np.int64],
    classes: int,
    validation: tuple[Array, NDArray[np.int64]] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    groups: Sequence[str] | None = None,
) -> Strength:
    """Choose the L2 penalty that is right most often; of equals, the one with the highest likelihood.

    As for CLIP's linear probes (Radford et al., arXiv 2103.00020, appendix A.3) it is chosen on validation clips, which
    the probe is not fitted to afterwards either. Where there are none, on folds of the training clips, each with some
    of every class: as many as the largest class has clips, at most 10, so that few clips are left out one a class.
    Clips of one group are in one fold.

    Args:
        features: (N, H) features of the training clips.
        labels: (N,) class of each.
        classes: number of classes C.
        validation: features and classes of the validation clips.
        strengths: penalties to try, the strongest first; of equally good ones the strongest is taken.
        groups: group of each training clip; None: each stands alone.
    """
    if validation is not None and len(validation[1]):
        rounds = [(np.arange(len(labels)), validation)]
        chosen_on = "validation"
    else:
        fold = _folds(labels, list(map(str, range(len(labels)))) if groups is None else groups)
        rounds = [
            (np.flatnonzero(fold != number), (features[fold == number], labels[fold == number]))
            for number in np.unique(fold[fold >= 0])
        ]
        chosen_on = "folds"
    if not rounds:
        return Strength(UNCHOSEN, "nothing")
    tried = []
    for strength in strengths:
        right, cost, total = 0, 0.0, 0
        for rows, (seen, truth) in rounds:
            logs = fit_probe(features[rows], labels[rows], classes, strength).log_probabilities(seen)
            right += int((logs.argmax(1) == truth).sum())
            cost -= float(logs[np.arange(len(truth)), truth].sum())
            total += len(truth)
        tried.append(Strength(strength, chosen_on, right / total, cost / total))
    return max(tried, key=lambda strength: (strength.accuracy or 0.0, -(strength.nll or 0.0)))


def _folds(labels: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    """The fold (N,) that leaves each clip out, whole groups together; -1 for clips that are always fitted to.

    These are the only group of their class, or one of the groups of a class that would all be in one fold.
    """
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    counts = Counter(labels[own[0]] for own in places.values())
    number = min(MOST_FOLDS, max(counts.values(), default=0))
    fold, dealt = np.zeros(len(labels), dtype=np.int64), Counter[int]()
    for own in places.values():
        label = labels[own[0]]
        fold[own] = dealt[label] % number
        dealt[label] += 1
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(np.unique(fold[rows])) == 1:
            fold[places[groups[rows[0]]]] = -1
    return fold
