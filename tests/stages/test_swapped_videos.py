"""Videos that stand in for each other, and how answers after a fixed rationale change with the video."""

from __future__ import annotations

import pytest

from rbft.data.records import VideoRecord
from rbft.evaluation.predictions import Prediction
from rbft.stages.robustness import partners, swap_figures

NAMES = ("a", "b", "c")


def record(name: str, label: str) -> VideoRecord:
    return VideoRecord(id=name, path=f"{name}.mp4", label=label)


def test_every_video_stands_in_once_and_for_another_class():
    records = [record(f"{label}{number}", label) for number in range(4) for label in NAMES] + [record("c9", "c")]
    shown = partners(records)
    assert sorted(other.id for other in shown.values()) == sorted(one.id for one in records)
    assert all(shown[one.id].label != one.label for one in records)


def test_where_one_class_has_most_videos_some_are_of_the_same():
    records = [record(f"a{number}", "a") for number in range(5)] + [record("b0", "b")]
    shown = partners(records)
    assert sum(shown[one.id].label != one.label for one in records) == 2
    assert len({other.id for other in shown.values()}) == 6


def said(name: str, label: str, chances: tuple[float, ...]) -> Prediction:
    return Prediction(name, f"{name}.mp4", label, None, chances, (), "text", {"direct": chances, "rationale": chances})


def test_figures_by_hand():
    """Four videos: one keeps its right answer, one keeps a wrong one, one follows the video, one has no other class."""
    a, b, c = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)
    own = [said("1", "a", a), said("2", "b", c), said("3", "c", c), said("4", "a", a)]
    shown = {"1": record("2", "b"), "2": record("3", "c"), "3": record("4", "a"), "4": record("1", "a")}
    swapped = {"2": said("2", "b", a), "3": said("3", "c", c), "4": said("4", "a", a), "1": said("1", "a", b)}
    figures = swap_figures(own, swapped, shown, NAMES)
    # the second one's wrong answer happens to be the class of the video that is shown
    assert figures == {
        "swapped_video/accuracy": pytest.approx(1 / 3),
        "swapped_video/unchanged": pytest.approx(2 / 3),
        "swapped_video/follows_video": pytest.approx(2 / 3),
    }
