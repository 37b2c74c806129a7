"""A linear text classifier: logistic regression on runs of words, as a control that fine-tunes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rbft.errors import ConfigError, DataError
from rbft.evaluation.folds import make_folds
from rbft.evaluation.linear_probe import LinearProbe

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Array = NDArray[np.float64]
Words = Callable[[str], list[str]]

STRENGTHS: tuple[float, ...] = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Strengths of the L2 penalty that are tried, the strongest first."""
UNCHOSEN = 0.1
"""The strength where there is nothing to choose it by: a class with clips of one group only."""
LONGEST_RUN = 4
"""Most words of a run that is a feature."""


@dataclass(frozen=True)
class TextProbe:
    """A fitted text classifier.

    Args:
        probe: tf-idf of word runs, and the logistic regression on it.
    """

    probe: LinearProbe

    def probabilities(self, texts: Sequence[Sequence[str]]) -> Array:
        """Probability of each class (N, C) for the texts of each of N clips: the mean over its texts."""
        sizes = [len(own) for own in texts]
        logs = self.probe.log_probabilities([text for own in texts for text in own])
        parts = np.split(np.exp(logs), np.cumsum(sizes)[:-1]) if sizes else []
        return np.array([part.mean(0) for part in parts]).reshape(len(sizes), self.probe.classes)


@dataclass(frozen=True)
class CrossFitted:
    """What a classifier that had not seen a clip says of it, at the chosen strength.

    Args:
        strength: strength of the L2 penalty.
        chosen_on: `folds` of the labelled clips, or `nothing`.
        probabilities: probability of each class (N, C) for each labelled clip; None where there are no folds.
        accuracy: share of the clips whose likeliest class is right; None where there are no folds.
        nll: mean negative log-probability of the right class.
    """

    strength: float
    chosen_on: str
    probabilities: Array | None = None
    accuracy: float | None = None
    nll: float | None = None


def fit_text_probe(
    texts: Sequence[Sequence[str]], labels: NDArray[np.int64], classes: int, strength: float, words: Words
) -> TextProbe:
    """Fit multinomial logistic regression on tf-idf of runs of one to four words.

    The model of a text is scikit-learn's: unit-length rows, term counts damped to 1 + log(count), document frequencies
    smoothed and counted in these texts alone. Minimises the summed negative log-likelihood, a clip counting once
    whatever the number of its texts, + strength / 2 * |weights|^2.

    Args:
        texts: the texts of each of N clips.
        labels: (N,) class of each; at least two classes have clips.
        classes: number of classes C; one without a clip gets little probability, not none.
        strength: strength of the penalty, above 0.
        words: function that cuts a text into words.

    Raises:
        DataError: No text has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = [text for own in texts for text in own]
    if not any(words(text) for text in rows):
        raise DataError(
            "the model's descriptions of the labelled clips hold no words, so there is nothing to classify them by; "
            "look at rationales.jsonl, and set model.prompts.rationale_question or model.writer.max_new_tokens."
        )
    counts = [len(own) for own in texts]
    present = np.unique(labels)
    # of two classes sklearn fits the difference of their weights: twice the squared norm of both
    inverse = (2 if len(present) == 2 else 1) / strength
    vectorizer = TfidfVectorizer(
        tokenizer=words, token_pattern=None, lowercase=False, ngram_range=(1, LONGEST_RUN), sublinear_tf=True
    )
    classifier = LogisticRegression(C=inverse, tol=1e-6, max_iter=5000)
    pipeline: Pipeline = make_pipeline(vectorizer, classifier)
    weights = np.repeat(1 / np.array(counts), counts)
    pipeline.fit(rows, np.repeat(labels, counts), logisticregression__sample_weight=weights)
    return TextProbe(LinearProbe(pipeline, present, classes))


def cross_fit(
    texts: Sequence[Sequence[str]],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    words: Words,
    strengths: Sequence[float] = STRENGTHS,
) -> CrossFitted:
    """Choose the penalty on folds of the labelled clips, so that all of them can be fitted to afterwards.

    Args:
        texts: the texts of each of N labelled clips.
        labels: (N,) class of each.
        groups: group of each clip; clips of one group are never fitted to and predicted in one fold.
        classes: number of classes C.
        words: function that cuts a text into words.
        strengths: penalties to try, the strongest first; of equally good ones the strongest is taken.

    Returns:
        The strength that is right most often out of fold (of equals, the one with the highest likelihood), with what it
        says of each clip there.
    """
    if not strengths:
        raise ConfigError("strengths: name at least one.")
    folds = make_folds(labels, groups)
    if folds is None:
        return CrossFitted(UNCHOSEN, "nothing")
    tried = []
    for strength in strengths:
        chances = np.zeros((len(texts), classes))
        for number in range(folds.max() + 1):
            rest, held = (np.flatnonzero(part).tolist() for part in (folds != number, folds == number))
            fitted = fit_text_probe([texts[i] for i in rest], labels[rest], classes, strength, words)
            chances[held] = fitted.probabilities([texts[i] for i in held])
        likely = chances[np.arange(len(labels)), labels]
        right, nll = float((chances.argmax(1) == labels).mean()), -float(np.log(np.maximum(likely, 1e-300)).mean())
        tried.append(CrossFitted(strength, "folds", chances, right, nll))
    return max(tried, key=lambda result: (result.accuracy or 0.0, -(result.nll or 0.0)))
