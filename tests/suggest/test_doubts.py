"""Which labels are doubted: as cleanlab does it, and on planted mistakes."""

from __future__ import annotations

import numpy as np

from rbft.suggest.doubts import cross_fitted, find_doubts

CLEANLAB = [13, 14, 33, 8, 26, 16, 18, 32]


def planted(seed: int, classes: int = 3, each: int = 30, wrong: int = 6) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Features in a heap for each class, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    features = 4 * np.eye(classes)[truth] + rng.normal(size=(len(truth), classes))
    labels = truth.copy()
    places = rng.choice(len(truth), wrong, replace=False)
    labels[places] = (labels[places] + 1) % classes
    return features, labels, set(places.tolist())


def test_labels_are_doubted_as_by_cleanlab() -> None:
    """What find_label_issues(filter_by="confident_learning", return_indices_ranked_by="self_confidence") of cleanlab
    2.9.0 gives for these probabilities."""
    rng = np.random.default_rng(7)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, 37)])
    truth = np.where(rng.random(40) < 0.2, rng.integers(0, 3, 40), labels)
    scores = rng.normal(size=(40, 3))
    scores[np.arange(40), truth] += 2
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert [doubt.place for doubt in find_doubts(chances, labels)] == CLEANLAB
    first = find_doubts(chances, labels)[0]
    assert first.given_probability == chances[first.place, labels[first.place]]
    assert first.other != labels[first.place] and first.other_probability == chances[first.place, first.other]


def test_planted_mistakes_are_found_by_a_classifier_that_has_not_seen_them() -> None:
    found, doubted = 0, 0
    for seed in range(5):
        features, labels, wrong = planted(seed)
        doubts = find_doubts(cross_fitted(features, labels, 3, [None] * len(labels)), labels)
        found += len({doubt.place for doubt in doubts} & wrong)
        doubted += len(doubts)
    assert found >= 18, "of thirty"
    assert found / doubted > 0.9


def test_a_group_is_never_judged_by_itself() -> None:
    """Each group is one recording, the same in every feature, whose label no other group has: it cannot be known."""
    rng = np.random.default_rng(0)
    groups = [f"g{number}" for number in range(20) for _ in range(3)]
    features = np.repeat(rng.normal(size=(20, 8)), 3, axis=0)
    labels = np.repeat(rng.integers(0, 2, 20), 3)
    whole = cross_fitted(features, labels, 2, groups)
    apart = cross_fitted(features, labels, 2, [None] * 60)
    right = [(chances.argmax(1) == labels).mean() for chances in (whole, apart)]
    assert right[0] < 0.75 < 0.9 < right[1]


def test_what_cannot_be_judged_is_said_to_be_no_number() -> None:
    features, labels = np.random.default_rng(0).normal(size=(7, 4)), np.array([0, 0, 0, 1, 1, 1, 2])
    chances = cross_fitted(features, labels, 3, [None] * 7)
    assert np.isnan(chances[6]).all() and np.isfinite(chances[:6]).all()
    assert np.isnan(cross_fitted(features, np.zeros(7, int), 3, [None] * 7)).all()
