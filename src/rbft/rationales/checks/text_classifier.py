"""A small text classifier: tf-idf of word runs and multinomial logistic regression, cross-validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rbft.rationales.checks.wording import numbered_runs, words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_LONGEST_RUN = 3
_MOST_FEATURES = 4096
_PENALTY = 1.0  # strength of the squared norm of all weights beside the summed loss


def vectors(texts: Sequence[str]) -> csr_matrix | None:
    """tf-idf rows of unit length (N, F) of the 4096 commonest runs of one to three words that at least two texts have.

    Term counts are damped to 1 + log(count), document frequencies smoothed; no label is used. None where no two texts
    share a word.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfTransformer

    # CountVectorizer makes a string of each run, which takes seven times as long
    counts = hstack(
        [
            csr_matrix((np.ones(len(rows)), (rows, runs)), shape=(len(texts), int(runs.max(initial=-1)) + 1))
            for rows, runs in numbered_runs([words(text) for text in texts], _LONGEST_RUN)
        ],
        format="csr",
    )
    having = counts.getnnz(axis=0)
    # shorter runs first where as many texts have them
    commonest = np.argsort(-having, kind="stable")[:_MOST_FEATURES]
    commonest = commonest[having[commonest] > 1]
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, commonest]) if len(commonest) else None


def cross_validated(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], classes: int, folds: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Probability of each class (N, C) for each text, by a classifier that has seen no text of its group.

    Args:
        texts: texts to classify.
        labels: class index of each, the same for all texts of a group; every class has at least two groups.
        groups: texts of one group (samples of one video) are never on both sides.
        classes: number of classes.
        folds: parts of the cross-validation; no more than the smallest class has groups.
        seed: seed of the dealing of groups to parts.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    features, wanted = vectors(texts), np.asarray(labels, np.int64)
    if features is None:
        return np.full((len(texts), classes), 1 / classes)
    names, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    parts = min(folds, int(np.bincount(wanted[first], minlength=classes).min()))
    # of two classes sklearn fits the difference of their weights, whose squared norm is twice that of both
    strength = (2 if classes == 2 else 1) / _PENALTY
    classifier = LogisticRegression(C=strength, class_weight="balanced", solver="newton-cg", tol=1e-5)
    chances = np.zeros((len(texts), classes))
    dealing = StratifiedKFold(parts, shuffle=True, random_state=seed)
    for _, held_groups in dealing.split(names, wanted[first]):
        held = np.isin(group_of, held_groups)
        chances[held] = classifier.fit(features[~held], wanted[~held]).predict_proba(features[held])
    return chances
