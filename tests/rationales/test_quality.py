"""What is kept, weighed and dropped, with reasons; and that no class loses everything in silence."""

from __future__ import annotations

import dataclasses

import pytest

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError, StageError
from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.leak import Leak
from rbft.rationales.quality import (
    BestOf,
    Filter,
    Keep,
    KeepAll,
    SoftWeights,
    require_distinct,
    score,
    unusable,
    verify,
)
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
        "not among the best 1 of its video",
        "",
        "empty",
        "",
        "not among the best 1 of its video",
    ]
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


STAR = PromptBook(Prompts(hint="blind_then_hint"), BOOK.labels)


@pytest.mark.parametrize(
    ("book", "changes", "reason"),
    [
        (STAR, {"stated": "fall"}, ""),
        (STAR, {"stated": "sit"}, "misstated class: sit"),
        (STAR, {"stated": None}, "unstated class"),
        # with the label the model repeats it or not; the checks look at that
        (STAR, {"stated": "sit", "hint": "hint_stripped"}, ""),
        (STAR, {"stated": "sit", "hint": "imported"}, ""),
        # elsewhere a blind text is the policy's to judge
        (BOOK, {"stated": "sit"}, ""),
        (BOOK, {"stated": None}, ""),
        (BOOK, {"stated": "sit", "label": "sit", "labelled": False}, ""),
        (BOOK, {"stated": None, "label": "", "labelled": False}, "unstated class"),
        (BOOK, {"text": ""}, "empty"),
        (BOOK, {"text": "", "reason": "control token"}, "control token"),
    ],
)
def test_what_no_policy_may_keep(book, changes, reason):
    one = dataclasses.replace(rationale("x", "a=1 b=1"), **changes)
    assert unusable(one, book) == reason
    (judged,) = KeepAll().judge([one], [], book)
    assert (judged.kept, judged.reason) == (not reason, reason)


def test_what_is_unusable_is_neither_scored_nor_rescued():
    wrong = dataclasses.replace(rationale("x", "a=0.9 b=0.9"), stated="sit")
    hinted = dataclasses.replace(rationale("x", "a=0.1 b=0.9", 1), hint="hint_stripped")
    found = verify(CHECKS, Filter("keep_best"), Material((wrong, hinted, SITS), STAR))
    assert [r.scores for r in found[:2]] == [{}, {"a": 0.1, "b": 0.9}]
    assert [r.kept for r in found] == [False, True, True]
    assert found[1].reason.startswith("best of a class that lost all")
    with pytest.raises(StageError, match=r"1 of 1 rationales of the class 'fall' are dropped \(misstated: 1\)"):
        verify(CHECKS, Filter("keep_best"), Material((wrong, SITS), STAR))


def test_scores_of_earlier_attempts_stand():
    asked: list[tuple[str, ...]] = []

    class Noting(Given):
        def _scores(self, material: Material) -> list[float | None]:
            asked.append(tuple(r.id for r in material.rationales))
            return super()._scores(material)

    class Comparing(Noting):
        compares = True

    before = dataclasses.replace(rationale("x", "a=0.1 b=0.2"), scores={"a": 0.7, "b": 0.8})
    rows = (before, dataclasses.replace(rationale("w", ""), text=""), rationale("y", "a=0.3 b=0.4"))
    found = score([Noting("a"), Comparing("b")], Material(rows, BOOK), standing=1)
    assert [r.scores for r in found] == [{"a": 0.7, "b": 0.8}, {}, {"a": 0.3, "b": 0.4}]
    assert asked == [("y",), ("x", "y")], "a check that compares sees them all"
    asked.clear()
    assert score([Comparing("b")], Material(rows[:1], BOOK), standing=1)[0].scores == before.scores
    assert asked == []


def test_unlabelled_videos_neither_cover_a_class_nor_need_to_be_covered():
    own_way = dataclasses.replace(rationale("u", "a=1 b=1"), labelled=False)
    with pytest.raises(StageError, match=r"1 of 1 rationales of the class 'fall' are dropped"):
        decide(Filter(), own_way, rationale("x", "a=0 b=1"))
    lost = dataclasses.replace(rationale("u", "a=0 b=1"), labelled=False)
    kept, dropped = decide(Filter("keep_best"), rationale("x", "a=1 b=1"), lost)
    assert (kept.kept, dropped.kept, dropped.reason) == (True, False, "a 0.00 below 0.50")


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"model\.keep\.count: 0 must be at least 1"):
        BestOf(0)
    with pytest.raises(ConfigError, match="'leak' stands twice"):
        require_distinct([Leak(), Leak(threshold=0.1)])
