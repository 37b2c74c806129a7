"""What is kept, weighed and dropped, with reasons; and that no class loses everything in silence."""

from __future__ import annotations

import dataclasses

import pytest

from rbft.data.labels import LabelSet
from rbft.errors import ConfigError, StageError
from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.leak import Leak
from rbft.rationales.prompts import PromptBook, Prompts
from rbft.rationales.quality import BestOf, Filter, Keep, KeepAll, SoftWeights, require_distinct, score, verify
from rbft.rationales.store import Rationale

BOOK = PromptBook(Prompts(), LabelSet(("fall", "sit")))


class Given(Check):
    """Scores by what stands in the text."""

    def __init__(self, name: str, threshold: float = 0.5) -> None:
        super().__init__(threshold)
        self.name = name  # type: ignore[misc]

    def _scores(self, material: Material) -> list[float | None]:
        read = [dict(part.split("=") for part in r.text.split()) for r in material.rationales]
        return [float(values[self.name]) if self.name in values else None for values in read]


CHECKS: list[Check] = [Given("a"), Given("b", 0.2)]


def rationale(id: str, text: str, sample: int = 0, label: str = "fall") -> Rationale:
    return Rationale(id, sample, f"{id}.mp4", label, "", "blind", "me", text, label, text, False)


SITS = rationale("s", "a=1 b=1", label="sit")


def decide(keep: Keep, *rationales: Rationale) -> list[Rationale]:
    return verify(CHECKS, keep, Material((*rationales, SITS), BOOK))[:-1]


def test_scores_are_stored_and_what_cannot_be_scored_is_left_out():
    found = score(CHECKS, Material((rationale("x", "a=0.25 b=1"), rationale("y", "b=0"), rationale("z", "")), BOOK))
    assert [r.scores for r in found] == [{"a": 0.25, "b": 1.0}, {"b": 0.0}, {}]


def test_earlier_decisions_do_not_last():
    before = dataclasses.replace(rationale("x", "a=1 b=1"), kept=False, reason="old", weight=0.1, scores={"old": 0.0})
    (after,) = decide(KeepAll(), before)
    assert (after.kept, after.reason, after.weight, after.scores) == (True, "", 1.0, {"a": 1.0, "b": 1.0})


def test_keep_all_drops_nothing_but_empty_texts():
    bad, empty = decide(KeepAll(), rationale("x", "a=0 b=0"), rationale("y", ""))
    assert (bad.kept, bad.reason) == (True, "")
    assert (empty.kept, empty.reason) == (False, "empty")


def test_filter_says_which_checks_failed():
    one, two, three, four = decide(
        Filter(),
        rationale("w", "a=0.5 b=0.2"),
        rationale("x", "a=0.4 b=0.9"),
        rationale("y", "a=0.1 b=0.1"),
        rationale("z", "b=0.9"),
    )
    assert (one.kept, one.reason) == (True, "")
    assert (two.kept, two.reason) == (False, "a 0.40 below 0.50")
    assert three.reason == "a 0.10 below 0.50, b 0.10 below 0.20"
    assert four.kept, "what a check could not score passes it"


def test_best_of_keeps_the_best_of_each_video():
    found = decide(
        BestOf(),
        rationale("x", "a=0.9 b=0.1", 0),
        rationale("x", "a=0.5 b=0.5", 1),
        rationale("x", "", 2),
        rationale("y", "a=0.1 b=0.1", 0),
        rationale("y", "a=0.1 b=0.1", 1),
    )
    assert [(r.id, r.sample) for r in found if r.kept] == [("x", 1), ("y", 0)]
    assert [r.reason for r in found] == [
        "not among the best 1 of its video", "", "empty", "", "not among the best 1 of its video"
    ]  # fmt: skip
    assert sum(r.kept for r in decide(BestOf(count=2), *found)) == 4


def test_soft_weights_are_products():
    half, none = decide(SoftWeights(), rationale("x", "a=0.5 b=0.5"), rationale("y", "a=0 b=0.5"))
    assert (half.kept, half.weight, half.reason) == (True, 0.25, "")
    assert (none.kept, none.reason) == (False, "weight 0: a")


@pytest.mark.parametrize("keep", [Filter, SoftWeights])
def test_a_class_that_loses_all_is_an_error(keep):
    with pytest.raises(StageError, match=r"2 of 2 rationales of the class 'fall' are dropped .*on_empty_class"):
        decide(keep(), rationale("x", "a=0 b=1"), rationale("y", "a=0 b=0.9"))


def test_or_keeps_the_best_of_each_of_its_videos_and_says_so():
    found = decide(
        Filter("keep_best"),
        rationale("x", "a=0.1 b=0.9", 0),
        rationale("x", "a=0.3 b=0.9", 1),
        rationale("y", "a=0.2 b=0.9"),
        rationale("z", ""),
    )
    assert [r.kept for r in found] == [False, True, True, False]
    assert found[1].reason == "best of a class that lost all; a 0.30 below 0.50"
    assert (found[0].reason, found[3].reason) == ("a 0.10 below 0.50", "empty")


def test_a_class_without_any_text_cannot_be_rescued():
    with pytest.raises(StageError, match=r"1 of 1 rationales of the class 'fall' are dropped \(empty: 1\)"):
        decide(Filter("keep_best"), rationale("x", ""))


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"model\.keep\.count: 0 must be at least 1"):
        BestOf(0)
    with pytest.raises(ConfigError, match="'leak' stands twice"):
        require_distinct([Leak(), Leak(threshold=0.1)])
