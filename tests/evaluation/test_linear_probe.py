"""The linear probe is the optimum of what it says, and its penalty is chosen on clips that it was not fitted to."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import special

from rbft.errors import ModelError
from rbft.evaluation.linear_probe import STRENGTHS, UNCHOSEN, choose_strength, fit_probe


def clusters(per_class: int, classes: int = 3, width: int = 40, spread: float = 1.0, seed: int = 0):
    """Features of classes that lie around points of their own, on scales that differ by feature."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    scale = np.random.default_rng(98).uniform(0.01, 100.0, width)
    return (centres[labels] + spread * rng.normal(size=(len(labels), width))) * scale + 7.0, labels


@pytest.mark.parametrize("per_class", [2, 30])  # fewer and more clips than features
@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_it_is_the_optimum_in_all_directions(per_class, strength):
    features, labels = clusters(per_class)
    probe = fit_probe(features, labels, 3, strength)
    scaler, rotation, classifier = (step for _, step in probe.pipeline.steps)
    standard = scaler.transform(features)
    weights = rotation.components_.T @ classifier.coef_.T
    logs = probe.log_probabilities(features)
    assert np.allclose(special.logsumexp(logs, axis=1), 0)
    excess = (np.exp(logs) - np.eye(3)[labels]) / len(labels)
    assert np.abs(standard.T @ excess + strength * weights).max() < 1e-5, "the gradient of the weights"
    assert np.abs(excess.sum(0)).max() < 1e-5, "the gradient of the bias"
    assert np.allclose(standard.mean(0), 0) and np.allclose(standard.std(0), 1)


@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_two_classes_are_fitted_as_two_of_many_are(strength):
    """The weights of two classes are opposite ones; the penalty counts both."""
    features, labels = clusters(10, classes=2, spread=4.0)
    probe = fit_probe(features, labels, 2, strength)
    standard = probe.pipeline[0].transform(features)
    weights = probe.pipeline[1].components_.T @ probe.pipeline[2].coef_[0] / 2
    excess = (np.exp(probe.log_probabilities(features)) - np.eye(2)[labels]) / len(labels)
    assert np.abs(standard.T @ excess + strength * np.stack([-weights, weights], 1)).max() < 1e-5


def test_it_tells_classes_of_new_clips_whatever_the_scale_of_a_feature():
    features, labels = clusters(8)
    new, truth = clusters(50, seed=1)
    probe = fit_probe(features, labels, 3, 1e-2)
    assert (probe.log_probabilities(new).argmax(1) == truth).mean() > 0.95
    scaled = fit_probe(features * 1000 - 5, labels, 3, 1e-2)
    assert np.allclose(scaled.log_probabilities(new * 1000 - 5), probe.log_probabilities(new), atol=1e-4)


def test_a_constant_feature_and_a_class_without_clips_do_no_harm():
    features, labels = clusters(4)
    features[:, 0] = 0.1  # whose mean is not exactly 0.1
    probe = fit_probe(features, labels, 4, 1e-2)
    assert probe.pipeline[0].scale_[0] == 1.0
    chances = np.exp(probe.log_probabilities(features))
    assert np.isfinite(chances).all() and (chances[:, 3] > 0).all() and (chances[:, 3] < 0.05).all()


def test_clips_that_are_all_alike_give_the_share_of_each_class_without_a_warning():
    with warnings.catch_warnings(action="error"):
        probe = fit_probe(np.full((4, 5), 0.3), np.array([0, 0, 0, 1]), 2, 1e-2)
    assert np.exp(probe.log_probabilities(np.ones((1, 5)))) == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_clips_unlike_all_training_clips_have_finite_log_probabilities(classes):
    features, labels = clusters(4, classes=classes)
    logs = fit_probe(features, labels, classes, 1e-6).log_probabilities(1e4 * features)
    assert logs.min() < -1000 and np.isfinite(logs).all()


def test_features_that_are_not_finite_are_refused():
    features, labels = clusters(2)
    features[0, 0] = np.nan
    with pytest.raises(ModelError, match=r"model\.dtype"):
        fit_probe(features, labels, 3, 1.0)


def test_the_penalty_is_chosen_on_validation_clips():
    features, labels = clusters(4, spread=3.0)
    validation = clusters(40, spread=3.0, seed=2)
    chosen = choose_strength(features, labels, 3, validation)

    def scored(strength: float) -> tuple[float, float]:
        logs = fit_probe(features, labels, 3, strength).log_probabilities(validation[0])
        right = (logs.argmax(1) == validation[1]).mean()
        return float(right), float(logs[np.arange(len(validation[1])), validation[1]].mean())

    best = max(STRENGTHS, key=scored)
    assert chosen.chosen_on == "validation"
    assert chosen.value == best
    assert (chosen.accuracy, chosen.nll) == pytest.approx((scored(best)[0], -scored(best)[1]))
    assert scored(best)[1] > scored(STRENGTHS[-1])[1] + 0.05, "the choice has to matter here"


def test_without_validation_clips_folds_of_the_training_clips_decide():
    features, labels = clusters(3, spread=3.0)
    chosen = choose_strength(features, labels, 3)
    assert chosen.chosen_on == "folds"
    logs, place = np.zeros((9, 3)), np.tile([0, 1, 2], 3)
    for fold in range(3):
        rest = place != fold
        logs[~rest] = fit_probe(features[rest], labels[rest], 3, chosen.value).log_probabilities(features[~rest])
    assert chosen.accuracy == pytest.approx((logs.argmax(1) == labels).mean())
    assert chosen.nll == pytest.approx(-logs[np.arange(9), labels].mean())


def test_clips_of_one_group_are_left_out_together():
    """Three copies of each recording, whose class no other recording tells: only a copy could know it."""
    rng = np.random.default_rng(0)
    features, labels = np.repeat(rng.normal(size=(20, 30)), 3, axis=0), np.repeat(rng.integers(0, 2, 20), 3)
    groups = [f"g{number}" for number in range(20) for _ in range(3)]
    assert choose_strength(features, labels, 2).accuracy == 1.0
    found = choose_strength(features, labels, 2, groups=groups).accuracy
    assert found is not None and found < 0.75


@pytest.mark.parametrize(
    ("groups", "accuracy"), [("abcdef", True), ("aabbcc", False), ("aabbcd", True), ("abcabc", True), ("aaabbb", False)]
)
def test_each_class_is_fitted_to_whatever_its_groups_are(groups: str, accuracy: bool):
    features, labels = clusters(2)
    found = choose_strength(features, np.sort(labels), 3, groups=list(groups))
    assert (found.accuracy is not None) is accuracy


def test_one_clip_a_class_leaves_nothing_to_choose_by():
    features, labels = clusters(1)
    chosen = choose_strength(features, labels, 3)
    assert (chosen.value, chosen.chosen_on, chosen.accuracy) == (UNCHOSEN, "nothing", None)


def test_it_gives_the_same_to_the_last_bit_each_time():
    features, labels = clusters(5, spread=2.0)
    first, again = (fit_probe(features, labels, 3, 1e-3) for _ in range(2))
    assert np.array_equal(first.log_probabilities(features), again.log_probabilities(features))
