"""The simulation: on planted clips a better choice saves labels, and nothing is learned from what is held out."""

from __future__ import annotations

import numpy as np
import pytest

from rbft.errors import DataError
from rbft.suggest.clips import Seen
from rbft.suggest.simulation import Curve, measure, simulate


def rare_class(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three hundred clips of which a tenth is of the second class, in a heap of its own; the rest in five heaps."""
    rng = np.random.default_rng(seed)
    heaps = rng.integers(0, 10, 300)
    labels = (heaps == 9).astype(np.int64)
    return 2.5 * np.eye(10)[heaps] + 0.7 * rng.normal(size=(300, 10)), labels


def test_choosing_by_doubt_beats_chance_where_it_can() -> None:
    features, labels = rare_class()
    curves = simulate(features, labels, 2, [None] * 300, first=10, step=10, steps=4, draws=12)
    assert {method: curve.accuracy.shape for method, curve in curves.items()} == dict.fromkeys(curves, (12, 5))
    said = curves["diverse"].against(curves["random"])
    assert said.difference.mean > 0.005 and said.needed is not None and said.needed < said.other_needed
    assert curves["random"].labels == (10, 20, 30, 40, 50)


def test_no_method_gains_where_there_is_nothing_to_learn() -> None:
    """Labels that have nothing to do with the features: whoever used those held out would be above chance."""
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(300, 10)), rng.integers(0, 2, 300)
    curves = simulate(features, labels, 2, [None] * 300, first=10, step=20, steps=3, draws=8)
    for curve in curves.values():
        assert abs(curve.means[-1] - 0.5) < 0.06


def test_what_is_saved_is_counted_on_the_mean_curves() -> None:
    steps = (10, 20, 30)
    slow = Curve("random", steps, np.array([[0.5, 0.6, 0.7], [0.5, 0.6, 0.7]]))
    fast = Curve("badge", steps, np.array([[0.5, 0.8, 0.8], [0.5, 0.6, 0.8]]))
    said = fast.against(slow)
    assert (said.needed, said.other_needed, said.goal) == (20, 30, pytest.approx(0.7))
    assert said.difference.mean == pytest.approx(((0.8 + 0.8 + 0.5) - 1.8) / 6 + ((0.5 + 0.6 + 0.8) - 1.8) / 6)
    assert said.to_json()["saved_ci95"] == [0.0, 10.0]
    never = Curve("margin", steps, np.full((2, 3), 0.5)).against(slow)
    assert never.needed is None and "does not reach" in never.describe()
    assert never.to_json()["saved_ci95"] == [None, None]


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(DataError, match=r"0 labelled clips are too few for batches of 20 .* Lower --count"):
        measure(Seen((), np.zeros((0, 4))), 20, 2, lambda *_: None)
