"""A linear text classifier: logistic regression on runs of words, as a control that fine-tunes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rbft.errors import DataError
from rbft.evaluation.cross_fit import CrossFitted, cross_fit
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


def cross_fit_texts(
    texts: Sequence[Sequence[str]],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    words: Words,
    strengths: Sequence[float] = STRENGTHS,
) -> CrossFitted[TextProbe]:
    """Choose the penalty on folds of the labelled clips, and fit all of them; see `rbft.evaluation.cross_fit`.

    Args:
        texts: the texts of each of N labelled clips.
        labels: (N,) class of each.
        groups: group of each clip.
        classes: number of classes C.
        words: function that cuts a text into words.
        strengths: penalties to try, the strongest first.
    """

    def fit(rows: Sequence[int], strength: float) -> TextProbe:
        return fit_text_probe([texts[i] for i in rows], labels[rows], classes, strength, words)

    def answer(probe: TextProbe, rows: Sequence[int]) -> Array:
        return probe.probabilities([texts[i] for i in rows])

    return cross_fit(labels, groups, classes, fit, answer, strengths, UNCHOSEN)
