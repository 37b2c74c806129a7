"""The text classifier on word runs, and the folds that its penalty is chosen on, on cases that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from rbft.errors import DataError
from rbft.evaluation.folds import make_folds
from rbft.evaluation.text_probe import UNCHOSEN, cross_fit_texts, fit_text_probe
from rbft.rationales.checks.wording import words

# what is done comes after who does it: only a run of words tells the classes apart
TEXTS = [["red goes up blue goes down"], ["blue goes up red goes down"]] * 4
LABELS = np.array([0, 1] * 4)


def test_runs_of_words_tell_apart_what_words_do_not():
    fitted = fit_text_probe(TEXTS, LABELS, 2, 0.1, words)
    assert fitted.probabilities(TEXTS).argmax(1).tolist() == LABELS.tolist()
    vocabulary = fitted.probe.pipeline[0].vocabulary_
    assert max(len(run.split()) for run in vocabulary) == 4 and "red goes up" in vocabulary


def test_it_is_the_optimum_of_its_own_objective():
    """By another solver, over three classes of which each clip has two texts that count half."""
    texts = [["a b", "a c"], ["b c", "b d"], ["c d", "a d"], ["a a b", "d"]]
    labels, strength = np.array([0, 1, 2, 0]), 0.5
    fitted = fit_text_probe(texts, labels, 3, strength, words)
    features = fitted.probe.pipeline[0].transform([text for own in texts for text in own]).toarray()
    rows = np.repeat(labels, 2)

    def loss(flat):
        weights, bias = flat[:-3].reshape(3, -1), flat[-3:]
        logits = features @ weights.T + bias
        nll = logsumexp(logits, axis=1) - logits[np.arange(len(rows)), rows]
        return nll.sum() / 2 + strength / 2 * (weights**2).sum()

    best = minimize(loss, np.zeros(3 * (features.shape[1] + 1)), method="L-BFGS-B", options={"ftol": 1e-14}).x
    logits = features @ best[:-3].reshape(3, -1).T + best[-3:]
    by_text = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    assert np.allclose(fitted.probabilities(texts), by_text.reshape(4, 2, 3).mean(1), atol=1e-4)


def test_a_class_without_clips_gets_little():
    assert 0 < fit_text_probe(TEXTS, LABELS, 3, 0.1, words).probabilities(TEXTS)[:, 2].max() < 1e-6


def test_texts_without_a_word_are_refused():
    with pytest.raises(DataError, match="hold no words"):
        fit_text_probe([["..."], [""]], np.array([0, 1]), 2, 0.1, words)


def test_the_penalty_is_chosen_on_clips_that_were_not_fitted_to():
    """Texts that tell nothing of their class: in-sample they would all be right."""
    texts = [[f"word{number}"] for number in range(16)]
    labels = np.array([0, 1] * 8)
    chosen = cross_fit_texts(texts, labels, [str(number) for number in range(16)], 2, words)
    assert chosen.chosen_on == "folds" and chosen.accuracy is not None
    assert chosen.accuracy <= 0.5
    known = cross_fit_texts(TEXTS, LABELS, [str(number) for number in range(8)], 2, words)
    assert known.accuracy == 1.0 and known.probabilities is not None and known.probabilities.shape == (8, 2)


def test_clips_of_one_group_are_in_one_fold():
    """The text names the group alone: with a group on both sides every clip would be right."""
    labels = np.repeat([0, 1], 8)
    groups = [f"{number // 2}" for number in range(16)]
    folds = make_folds(labels, groups)
    assert folds is not None and len(set(folds.tolist())) == 4
    assert all(len({fold for fold, other in zip(folds, groups, strict=True) if other == g}) == 1 for g in groups)
    texts = [[f"group{group}"] for group in groups]
    assert cross_fit_texts(texts, labels, groups, 2, words).accuracy <= 0.5
    assert cross_fit_texts(texts, labels, [str(i) for i in range(16)], 2, words).accuracy > 0.7


def test_where_a_class_has_one_group_there_are_no_folds():
    assert make_folds(np.array([0, 0, 1, 1]), ["a", "b", "c", "c"]) is None
    chosen = cross_fit_texts(TEXTS, LABELS, ["a" if label else str(i) for i, label in enumerate(LABELS)], 2, words)
    assert (chosen.strength, chosen.chosen_on, chosen.probabilities) == (UNCHOSEN, "nothing", None)
