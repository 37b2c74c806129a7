"""A small text classifier: tf-idf of word runs and multinomial logistic regression, cross-validated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from rbft.rationales.checks.wording import numbered_runs, words

Floats = npt.NDArray[np.float64]
_LONGEST_RUN = 3
_MOST_FEATURES = 4096
_PENALTY = 1.0  # strength of the squared norm of all weights beside the summed loss
_ROUNDS = 60


def vectors(texts: Sequence[str]) -> csr_matrix:
    """tf-idf rows of unit length (N, F) of the 4096 commonest runs of one to three words that at least two texts have.

    Term counts are damped to 1 + log(count), document frequencies smoothed; no label is used.
    """
    rows, runs, numbers = [], [], 0
    for of_texts, of_runs in numbered_runs([words(text) for text in texts], _LONGEST_RUN):
        rows.append(of_texts)
        runs.append(of_runs + numbers)
        numbers += int(of_runs.max(initial=-1)) + 1
    pairs, counts = np.unique(np.concatenate(rows) * max(1, numbers) + np.concatenate(runs), return_counts=True)
    row, run = np.divmod(pairs, max(1, numbers))
    documents = np.bincount(run, minlength=numbers)
    # shorter runs first where as many texts have them
    known = np.argsort(-documents, kind="stable")[:_MOST_FEATURES]
    known = known[documents[known] > 1]
    column = np.full(numbers, -1)
    column[known] = np.arange(len(known))
    kept = column[run] >= 0
    row, run = row[kept], run[kept]
    weights = (1 + np.log(counts[kept])) * (np.log((1 + len(texts)) / (1 + documents[run])) + 1)
    norms = np.sqrt(np.bincount(row, weights**2, minlength=len(texts)))
    return csr_matrix((weights / norms[row], (row, column[run])), shape=(len(texts), len(known)))


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
