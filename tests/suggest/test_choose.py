"""Which clips are chosen: on planted features and probabilities where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from rbft.suggest.choose import Chooser, badge, diverse, margin, margins, scaled, typical

RNG = np.random.default_rng


def test_the_least_decided_come_first() -> None:
    chances = np.array([[0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.5, 0.5, 0.0], [0.34, 0.33, 0.33]])
    assert margins(chances).round(2).tolist() == [0.8, 0.05, 0.0, 0.01]
    assert margin(np.zeros((4, 2)), chances, 3, RNG(0)) == [2, 3, 1]


@pytest.mark.parametrize("choose", [badge, diverse])
def test_unsure_clips_that_differ_are_taken(choose: Chooser) -> None:
    """Two heaps of unsure clips and many sure ones: the first two choices are one of each heap."""
    rng = RNG(0)
    heaps = np.concatenate([np.full((30, 4), 5.0), np.full((30, 4), -5.0), rng.normal(size=(60, 4))])
    features = heaps + 0.01 * rng.normal(size=heaps.shape)
    unsure = 0.5 + 0.01 * rng.random(60)
    chances = np.concatenate([np.stack([unsure, 1 - unsure], axis=1), np.tile([0.999, 0.001], (60, 1))])
    chosen = choose(features, chances, 2, RNG(1))
    assert sorted(place // 30 for place in chosen) == [0, 1]
    assert len(set(choose(features, chances, 200, RNG(1)))) == 120, "each clip once, and no more than there are"


def test_badge_draws_as_k_means_plus_plus_over_whole_gradients() -> None:
    """The factorised distances are those of the gradients themselves, which are small enough to write down here."""
    rng = RNG(3)
    features, chances = rng.normal(size=(12, 3)), rng.dirichlet(np.ones(4), 12)
    errors = chances - np.eye(4)[chances.argmax(1)]
    gradients = np.einsum("nc,nh->nch", errors, scaled(features)).reshape(12, -1)
    expected = [int((gradients**2).sum(1).argmax())]
    same = RNG(5)
    while len(expected) < 6:
        distance = ((gradients[:, None] - gradients[None, expected]) ** 2).sum(-1).min(1)
        distance[expected] = 0
        expected.append(int(same.choice(12, p=distance / distance.sum())))
    assert badge(features, chances, 6, RNG(5)) == expected


def test_typical_clips_come_from_groups_without_a_label() -> None:
    rng = RNG(0)
    centres = np.array([[9.0, 0], [0, 9], [-9, 0], [0, -9]])
    features = np.repeat(centres, 25, axis=0) + rng.normal(size=(100, 2))
    known = centres[:2]
    chosen = typical(features, known, 2, seed=0)
    assert sorted(place // 25 for place in chosen) == [2, 3]
    assert sorted(place // 25 for place in typical(features, known[:0], 4, seed=0)) == [0, 1, 2, 3]
    assert len(set(typical(features, known, 300, seed=0))) == 100


def test_clips_that_are_all_alike_are_no_trouble() -> None:
    features, chances = np.ones((6, 3)), np.full((6, 2), 0.5)
    assert sorted(badge(features, chances, 6, RNG(0))) == list(range(6))
    assert len(set(diverse(features, chances, 4, RNG(0)))) == 4
    assert sorted(typical(features, features[:1], 6, seed=0)) == list(range(6))


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_seed_chooses_the_same(count: int) -> None:
    features, chances = RNG(0).normal(size=(20, 5)), RNG(1).dirichlet(np.ones(3), 20)
    for choose in (badge, diverse):
        assert choose(features, chances, count, RNG(2)) == choose(features, chances, count, RNG(2))
