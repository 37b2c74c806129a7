"""A linear probe: multinomial logistic regression on fixed features, as a control for what fine-tuning adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from rbft.errors import ModelError

Array = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(float(10.0**power) for power in range(2, -7, -1))
"""Strengths of the L2 penalty that are tried, the strongest first."""
UNCHOSEN = 1e-2
"""The strength where there is nothing to choose it by: no validation clips, and one training clip a class."""
MOST_FOLDS = 10
_STEPS = 5000


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: log-probabilities are log-softmax((x - mean) / scale @ weights + bias).

    Args:
        mean: (H,) of the training clips.
        scale: (H,) their standard deviation; 1 where a feature is constant.
        weights: (H, C).
        bias: (C,).
    """

    mean: Array
    scale: Array
    weights: Array
    bias: Array

    def log_probabilities(self, features: Array) -> Array:
        """Of each class for features (N, H), as (N, C)."""
        scores = (features - self.mean) / self.scale @ self.weights + self.bias
        return scores - special.logsumexp(scores, axis=1, keepdims=True)


@dataclass(frozen=True)
class Strength:
    """The chosen strength of the L2 penalty.

    Args:
        value: Lambda in `fit_probe`.
        chosen_on: `validation`, `folds` of the training clips, or `nothing`.
        accuracy: Of the clips it was chosen on; None where it was chosen on nothing.
        nll: Mean negative log-probability of the right class there.
    """

    value: float
    chosen_on: str
    accuracy: float | None = None
    nll: float | None = None


def fit_probe(features: Array, labels: NDArray[np.int64], classes: int, strength: float) -> LinearProbe:
    """Fit a probe (Alain and Bengio, arXiv 1610.01644) by full-batch L-BFGS in double precision.

    Minimises the mean negative log-likelihood + strength / 2 * |weights|^2 over standardised features; the bias is not
    penalised. The optimum lies in the span of the training clips, so it is sought there, which is the same and far
    smaller where clips are few.

    Args:
        features: (N, H), one row a training clip.
        labels: (N,) class of each.
        classes: Their number C; one without a training clip gets little probability, not none.
        strength: Of the penalty, above 0.

    Raises:
        ModelError: A feature is not finite.
    """
    if not np.isfinite(features).all():
        raise ModelError(
            "visual features of a training clip are not finite, so nothing can be fitted to them; load "
            "the model in another precision with model.dtype, for example float32."
        )
    mean, scale = features.mean(0), features.std(0)
    # rounding leaves a constant feature a spread that is none
    scale = np.where(scale > 1e-9 * np.maximum(1.0, np.abs(mean)), scale, 1.0)
    left, sizes, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
    rank = int((sizes > 1e-10 * max(1.0, float(sizes.max(initial=0.0)))).sum())
    inner = left[:, :rank] * sizes[:rank]
    count = len(labels)
    truth = np.zeros((count, classes))
    truth[np.arange(count), labels] = 1.0

    def objective(flat: Array) -> tuple[float, Array]:
        weights, bias = flat[: rank * classes].reshape(rank, classes), flat[rank * classes :]
        scores = inner @ weights + bias
        logs = scores - special.logsumexp(scores, axis=1, keepdims=True)
        excess = (np.exp(logs) - truth) / count
        loss = -(logs * truth).sum() / count + 0.5 * strength * (weights**2).sum()
        # of all biases that give the same probabilities the one that sums to 0
        loss += 0.5 * float(bias.sum()) ** 2
        gradient = np.concatenate([(inner.T @ excess + strength * weights).ravel(), excess.sum(0) + bias.sum()])
        return float(loss), gradient

    # a class without a clip would be pushed to probability 0 by the bias alone, for ever
    bounds = [(None, None)] * (rank * classes) + [(-20.0, 20.0)] * classes
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 20}
    found = optimize.minimize(
        objective, np.zeros((rank + 1) * classes), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    weights = right[:rank].T @ found.x[: rank * classes].reshape(rank, classes)
    return LinearProbe(mean, scale, weights, found.x[rank * classes :])


def choose_strength(
    features: Array,
    labels: NDArray[np.int64],
    classes: int,
    validation: tuple[Array, NDArray[np.int64]] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Strength:
    """Choose the L2 penalty: what is right most often, of equals what gives the right class most.

    As for CLIP's linear probes (Radford et al., arXiv 2103.00020, appendix A.3) it is chosen on validation clips, which
    the probe is not fitted to afterwards either. Where there are none, on folds of the training clips, each with some
    of every class: as many as the largest class has clips, at most 10, so that few clips are left out one a class.

    Args:
        features: (N, H) of the training clips.
        labels: (N,) class of each.
        classes: Their number.
        validation: Features and classes of the validation clips.
        strengths: What is tried, the strongest first; of what does equally well the strongest is taken.
    """
    if validation is not None and len(validation[1]):
        rounds = [(np.arange(len(labels)), validation)]
        chosen_on = "validation"
    else:
        fold = _folds(labels)
        rounds = [
            (np.flatnonzero(fold != number), (features[fold == number], labels[fold == number]))
            for number in range(fold.max(initial=-1) + 1)
        ]
        chosen_on = "folds"
    if not rounds:
        return Strength(UNCHOSEN, "nothing")
    found = []
    for strength in strengths:
        right, cost, total = 0, 0.0, 0
        for rows, (seen, truth) in rounds:
            logs = fit_probe(features[rows], labels[rows], classes, strength).log_probabilities(seen)
            right += int((logs.argmax(1) == truth).sum())
            cost -= float(logs[np.arange(len(truth)), truth].sum())
            total += len(truth)
        found.append(Strength(strength, chosen_on, right / total, cost / total))
    return max(found, key=lambda one: (one.accuracy or 0.0, -(one.nll or 0.0)))


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold (N,) that leaves each clip out; -1 for the only clip of its class, which is always fitted to."""
    fold = np.full(len(labels), -1)
    counts = np.bincount(labels)
    number = min(MOST_FOLDS, int(counts.max(initial=0)))
    for label in np.flatnonzero(counts > 1):
        places = np.flatnonzero(labels == label)
        fold[places] = np.arange(len(places)) % number
    return fold
