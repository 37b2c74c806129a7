"""Counts of predictions: every test video stands once, the unreadable ones where they belong."""

from __future__ import annotations

import math

import pytest

from rbft.evaluation.predictions import Prediction, accuracy_and_nll, confusion_counts, recalls

NAMES = ("a", "b", "c")


def said(label: str, predicted: str | None) -> Prediction:
    chances = () if predicted is None else tuple(0.8 if name == predicted else 0.1 for name in NAMES)
    return Prediction(label, "x.mp4", label, predicted, chances, chances)


FOUND = [said("a", "a"), said("a", "b"), said("a", None), said("b", "b"), said("b", "b")]


def test_rows_are_true_classes_and_unreadable_videos_are_in_none():
    assert confusion_counts(FOUND, NAMES).tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]


def test_unreadable_videos_count_as_wrong_in_recall():
    assert recalls(FOUND, NAMES) == {"a": (1, 3), "b": (2, 2), "c": (0, 0)}


def test_a_class_that_is_not_known_is_no_zero():
    with pytest.raises(KeyError):
        confusion_counts([said("d", "a")], NAMES)


def test_accuracy_and_likelihood_by_hand():
    right, nll = accuracy_and_nll([said("a", "a"), said("b", "a")], NAMES)
    assert right == 0.5 and nll == pytest.approx(-(math.log(0.8) + math.log(0.1)) / 2)
    impossible = Prediction("x", "x.mp4", "b", "a", (1.0, 0.0, 0.0), (0.0, -1e9, -1e9))
    assert math.isfinite(accuracy_and_nll([impossible], NAMES)[1])
