"""The verdict of a comparison, on planted accuracies: what it says, and which method it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rbft.evaluation.comparison import Group, Member, compare
from rbft.evaluation.statistics import mean_interval
from rbft.evaluation.verdict import decide, judge, widened

SFT = (0.60, 0.64, 0.58, 0.62, 0.66)


def groups(**accuracies: tuple[float, ...]) -> list[Group]:
    """Groups of methods with an accuracy for each draw; chance is a half, the majority 55%."""
    members = [
        Member({"method": method, "data.draw": draw}, value, Path("none"), chance=0.5, majority=0.55)
        for method, values in accuracies.items()
        for draw, value in enumerate(values)
    ]
    return compare(members, {"method": "sft"}, ("data.draw",))


def plus(*points: int) -> tuple[float, ...]:
    return tuple(base + point / 100 for base, point in zip(SFT, points, strict=False))


def test_better():
    found = decide(groups(sft=SFT, rbft=plus(6, 8, 4, 7, 5)), seconds={"sft": 60, "rbft": 200})
    assert found.outcome == "better" and found.method == "rbft"
    assert found.sentences == ("On your clips RB-FT is 6.0 points better than direct SFT (4.0 to 8.0, 5 draws).",)


def test_worse():
    found = decide(groups(sft=SFT, rbft=plus(-6, -8, -4, -7, -5)), seconds={"sft": 60, "rbft": 200})
    assert (found.outcome, found.method) == ("worse", "sft")
    assert found.sentences == ("On your clips RB-FT is 6.0 points worse than direct SFT (4.0 to 8.0, 5 draws).",)


def test_no_difference_names_the_cheaper_one():
    accuracies = groups(sft=SFT, rbft=plus(6, -3, 4, -2, 1))
    found = decide(accuracies, seconds={"sft": 60, "rbft": 200})
    assert (found.outcome, found.method) == ("no difference", "sft")
    assert found.sentences == (
        "On your clips there is no difference between RB-FT and direct SFT that 5 draws can show "
        "(+1.2 points, -3.6 to +6.0); direct SFT is the cheaper.",
    )
    assert "RB-FT is the cheaper" in decide(accuracies, seconds={"sft": 60, "rbft": 20}).sentences[0]
    assert "cheaper" not in decide(accuracies).sentences[0], "nothing is known of the cost"


@pytest.mark.parametrize(("count", "words"), [(1, "1 draw is too few"), (2, "2 draws are too few")])
def test_too_few_draws(count: int, words: str):
    found = decide(groups(sft=SFT[:count], rbft=plus(*[20, 21][:count])))
    assert (found.outcome, found.method) == ("too few draws", "sft")
    assert found.sentences[0].startswith(words) and "3 are the least" in found.sentences[0]


def test_draws_that_all_differ_alike_give_no_interval():
    found = decide(groups(sft=SFT, rbft=plus(5, 5, 5, 5, 5)))
    assert (found.outcome, found.method) == ("too few draws", "sft")
    assert "all 5 draws differ by the same +5.0 points, which gives no interval" in found.sentences[0]
    assert judge(mean_interval([0.0, 0.0, 0.0])) == "no difference"


@pytest.mark.parametrize("videos", [10, 20, 26, 40, 50])
def test_a_difference_that_is_the_same_in_all_draws_is_no_result_whatever_its_rounding(videos: int):
    for more in range(1, videos):
        alike = groups(sft=(0.0,) * 3, rbft=(more / videos,) * 3)
        assert decide(alike).outcome == "too few draws", more


def test_no_draw_of_both():
    members = [
        Member({"method": "sft", "data.draw": 0}, 0.6, Path("none")),
        Member({"method": "rbft", "data.draw": 0}, None, Path("none")),
    ]
    found = decide(compare(members, {"method": "sft"}, ("data.draw",)))
    assert (found.outcome, found.method) == ("not compared", "sft")
    assert found.sentences == ("RB-FT and direct SFT cannot be compared: no draw has a finished run of both.",)


def test_others_pay_for_their_number():
    # 95% of one interval ends above 0, that of three together does not
    change = plus(6, 1, 9, 2, 4)
    alone = decide(groups(sft=SFT, rbft=SFT, checked=change))
    assert "better: checked (+4.4, +0.4 to +8.4)" in alone.sentences[1] and alone.method == "checked"
    three = decide(groups(sft=SFT, rbft=SFT, checked=change, probe=plus(-9, -8, -9, -7, -9), zero_shot=SFT))
    assert "(intervals corrected for 3 comparisons)" in three.sentences[1]
    assert "worse: the linear probe (-8.4, " in three.sentences[1]
    assert "no difference shown: checked (+4.4, -1.3 to +10.1), the untrained model (+0.0" in three.sentences[1]
    assert three.method == "sft"
    interval = mean_interval([0.01, 0.05, 0.03])
    assert widened(interval, 1) == interval
    assert widened(mean_interval([0.5]), 3) == mean_interval([0.5])


def test_a_cheaper_method_has_only_not_to_be_worse_and_one_that_cannot_predict_is_not_taken():
    accuracies = groups(sft=SFT, rbft=plus(1, -1, 2, -2, 1), zero_shot=plus(2, -1, 1, -1, 0), probe=plus(9, 8, 9, 7, 9))
    seconds = {"sft": 60.0, "rbft": 200.0, "zero_shot": 5.0, "probe": 5.0}
    assert decide(accuracies, seconds=seconds, unusable=("probe",)).method == "zero_shot"
    assert decide(accuracies, seconds=seconds).method == "probe"
    assert decide(accuracies, seconds=seconds | {"zero_shot": 70.0}, unusable=("probe",)).method == "sft"
    worse = groups(sft=SFT, rbft=SFT, zero_shot=plus(1, -1, 1, -1, -1))
    assert decide(worse, seconds=seconds).method == "sft"


def test_no_better_than_looking_at_nothing_is_told():
    found = decide(groups(sft=(0.5, 0.52, 0.54), rbft=(0.55, 0.5, 0.49)))
    assert not found.worth_using
    assert found.sentences[-1] == (
        "Direct SFT is right on 52.0%, which is no better than always naming the most frequent class (55.0%): do not "
        "use it yet. Take a stronger model, or label more clips."
    )


@pytest.mark.parametrize("classes", [3, 6, 7, 10, 30])
def test_one_answer_for_everything_is_no_better_than_guessing_whatever_its_rounding(classes: int):
    for draws in range(1, 8):
        one = groups(sft=(1 / classes,) * draws)
        floors = [dataclasses.replace(group, chance=1 / classes, majority=None) for group in one]
        assert not decide(floors).worth_using, draws


def test_a_cheaper_method_that_is_as_good_in_the_mean_is_taken_whatever_its_rounding():
    even = groups(sft=(0.5, 0.5, 0.5), zero_shot=(0.53, 0.49, 0.48))
    assert decide(even, seconds={"sft": 60.0, "zero_shot": 5.0}).method == "zero_shot"
