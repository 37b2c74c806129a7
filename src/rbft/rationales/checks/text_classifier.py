"""A small text classifier: tf-idf of word runs and multinomial logistic regression, cross-validated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from rbft.rationales.checks.wording import ngrams, words

Floats = npt.NDArray[np.float64]
_LONGEST_RUN = 3
_MOST_FEATURES = 4096
_PENALTY = 1.0  # strength of the squared norm of all weights beside the summed loss
_ROUNDS = 60


def _runs(text: str) -> Counter[tuple[str, ...]]:
    tokens = words(text)
    return Counter(run for n in range(1, _LONGEST_RUN + 1) for run in ngrams(tokens, n))


def vectors(texts: Sequence[str]) -> csr_matrix:
    """tf-idf rows of unit length (N, F): runs of one to three words that occur in at least two texts.

    Term counts are damped to 1 + log(count), document frequencies smoothed; no label is used.
    """
    counts = [_runs(text) for text in texts]
    documents = Counter(run for count in counts for run in count)
    known = [run for run, number in documents.most_common(_MOST_FEATURES) if number > 1]
    column = {run: place for place, run in enumerate(known)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, count in enumerate(counts):
        weights = {
            column[run]: (1 + np.log(number)) * (np.log((1 + len(texts)) / (1 + documents[run])) + 1)
            for run, number in count.items()
            if run in column
        }
        norm = np.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        rows += [row] * len(weights)
        columns += weights.keys()
        values += [weight / norm for weight in weights.values()]
    return csr_matrix((values, (rows, columns)), shape=(len(texts), len(known)))


def _probabilities(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def fit(features: csr_matrix, labels: npt.NDArray[np.int64], classes: int) -> tuple[Floats, Floats]:
    """Weights (F, C) and biases (C,) of a regularised multinomial logistic regression, classes weighted equally.

    Args:
        features: (N, F).
        labels: (N,) class indices.
        classes: How many there are.
    """
    count, width = features.shape
    wanted = np.eye(classes)[labels]
    present = np.bincount(labels, minlength=classes)
    weights = (count / (np.count_nonzero(present) * np.maximum(present, 1)))[labels][:, None]
    transposed = features.T.tocsr()

    def loss(flat: Floats) -> tuple[float, Floats]:
        slopes, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        chances = _probabilities(features @ slopes + bias)
        value = -float((weights * wanted * np.log(np.maximum(chances, 1e-300))).sum())
        residual = weights * (chances - wanted)
        gradient = np.concatenate([(transposed @ residual + _PENALTY * slopes).ravel(), residual.sum(0)])
        return value + 0.5 * _PENALTY * float((slopes**2).sum()), gradient

    found = minimize(
        loss, np.zeros((width + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS, "ftol": 1e-6}
    )
    return found.x[:-classes].reshape(width, classes), found.x[-classes:]


def cross_validated(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], classes: int, folds: int, seed: int = 0
) -> Floats:
    """Probability of each class (N, C) for each text, by a classifier that has seen no text of its group.

    Args:
        texts: The texts.
        labels: Class index of each.
        groups: Texts of one group (samples of one video) are never on both sides.
        classes: How many there are.
        folds: Parts; each class's groups are dealt out to them in turn.
        seed: Of the dealing.
    """
    features, wanted = vectors(texts), np.asarray(labels, np.int64)
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    dealt = 0
    for label in range(classes):
        members = sorted({group for group, mine in zip(groups, labels, strict=True) if mine == label} - fold_of.keys())
        for group in rng.permutation(members).tolist():
            # dealt on from class to class, so that folds are of one size
            fold_of[group], dealt = dealt % folds, dealt + 1
    fold = np.array([fold_of[group] for group in groups])
    found = np.zeros((len(texts), classes))
    for part in range(folds):
        held = fold == part
        if held.any():
            slopes, bias = fit(features[~held], wanted[~held], classes)
            found[held] = _probabilities(features[held] @ slopes + bias)
    return found
