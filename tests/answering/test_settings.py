"""Ways of answering: mixtures are means, and validation chooses what it should."""

from __future__ import annotations

import pytest

from rbft.answering.choice import Choice, answer, choose, gates
from rbft.answering.settings import MIXTURES, Answering, Robustness
from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction

NAMES = ("a", "b")


def predicted(number: int, label: str, direct: float, rationale: float | None) -> Prediction:
    """Of two classes; the figures are probabilities of the first."""
    answers = {} if rationale is None else {"direct": (direct, 1 - direct), "rationale": (rationale, 1 - rationale)}
    name = "a" if direct >= 0.5 else "b"
    return Prediction(str(number), f"{number}.mp4", label, name, (direct, 1 - direct), (0.0, 0.0), "it is", answers)


def test_a_mixture_is_the_weighted_mean():
    found = answer(predicted(0, "a", 0.2, 0.9), Choice("mixture", 0.25, 1.0), NAMES)
    assert found.probabilities == pytest.approx((0.375, 0.625))
    assert found.answers["mixture"] == found.probabilities
    assert found.predicted == "b"
    assert sum(found.probabilities) == pytest.approx(1)


@pytest.mark.parametrize(("mode", "expected"), [("direct", "b"), ("rationale", "a")])
def test_all_ways_stand_beside_the_one_that_counts(mode, expected):
    found = answer(predicted(0, "a", 0.2, 0.9), Choice(mode, 0.0, 1.0), NAMES)
    assert found.predicted == expected
    assert found.probabilities == found.answers[mode]
    assert found.answers["mixture"] == pytest.approx((0.55, 0.45))
    assert set(found.answers) == {"direct", "rationale", "mixture"}


def test_one_way_is_left_as_it_is():
    alone = predicted(0, "a", 0.2, None)
    assert answer(alone, Choice("direct", 0.0, 1.0), NAMES) is alone


def test_validation_takes_the_way_that_is_right_most_often():
    good = [predicted(i, "a", 0.1, 0.8) for i in range(3)]
    found = choose(Answering(mode="validation"), {1.0: good}, NAMES)
    assert found.mode == "rationale" and found.validation_accuracy == 1.0
    bad = [predicted(i, "a", 0.9, 0.2) for i in range(3)]
    assert choose(Answering(mode="validation"), {1.0: bad}, NAMES).mode == "direct"


def test_a_mixture_wins_where_each_way_alone_is_wrong_once():
    split = [predicted(0, "a", 0.9, 0.4), predicted(1, "b", 0.6, 0.1)]
    found = choose(Answering(mode="validation"), {1.0: split}, NAMES)
    assert found.mode == "mixture" and found.validation_accuracy == 1.0
    assert found.mixture_weight in MIXTURES
    fixed = choose(Answering(mode="mixture", mixture_weight=0.5), {1.0: split}, NAMES)
    assert (fixed.mode, fixed.mixture_weight) == ("mixture", 0.5)


def test_strength_is_chosen_by_validation():
    weak, strong = [predicted(0, "a", 0.7, None)], [predicted(0, "a", 0.4, None)]
    settings = Answering(strength=None)
    found = choose(settings, {0.25: weak, 1.0: strong}, NAMES)
    assert found == Choice("direct", 0.0, 0.25, 1.0, pytest.approx(0.3567, abs=1e-3))
    # of two that are both right the surer, and of equals the smaller change
    assert choose(settings, {0.25: weak, 1.0: [predicted(0, "a", 0.8, None)]}, NAMES).strength == 1.0
    assert choose(settings, {0.25: weak, 1.0: weak}, NAMES).strength == 0.25


@pytest.mark.parametrize(
    ("settings", "writes", "needs"),
    [
        ({}, False, False),
        ({"mode": "rationale"}, True, False),
        ({"mode": "mixture"}, True, True),
        ({"mode": "mixture", "mixture_weight": 0.3}, True, False),
        ({"mode": "validation"}, True, True),
        ({"mode": "gated", "gate": 0.9}, True, False),
        ({"mode": "gated"}, True, True),
        ({"mode": "gated", "choose_on": "crossfit"}, True, False),
        ({"mode": "crossfit"}, True, False),
        ({"strength": None}, False, True),
        ({"strength": 0.5}, False, False),
    ],
)
def test_what_settings_need(settings, writes, needs):
    found = Answering(**settings)
    assert (found.writes, found.needs_validation) == (writes, needs)


def test_there_is_nothing_between_the_base_model_and_itself():
    assert Answering(strength=None).tried_strengths(tuned=False) == (1.0,)
    assert Answering(strength=None).tried_strengths(tuned=True) == (0.25, 0.5, 0.75, 1.0)
    assert Answering(strength=0.4).tried_strengths(tuned=True) == (0.4,)


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 0},
        {"samples": 2},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"mixture_weight": 1.5},
        {"strength": -0.1},
        {"strengths": ()},
        {"strengths": (0.5, 2.0)},
        {"max_new_tokens": 0},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=r"^model\.answering"):
        Answering(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"gate": 0.9},
        {"mode": "gated", "gate": 1.5},
        {"most_reasoned": 0.5},
        {"mode": "gated", "gate": 0.9, "most_reasoned": 0.5},
        {"mode": "gated", "most_reasoned": 1.5},
    ],
)
def test_a_gate_and_what_bounds_it_belong_to_its_mode(settings):
    with pytest.raises(ConfigError, match=r"^model\.answering\.(gate|most_reasoned)"):
        Answering(**settings)


# sure and right, sure and wrong, unsure and wrong, unsure and right; after a rationale the unsure ones are right
FOUR = [
    predicted(0, "a", 0.9, 0.2),
    predicted(1, "b", 0.8, 0.7),
    predicted(2, "b", 0.6, 0.3),
    predicted(3, "a", 0.7, 0.9),
]


def test_gates_write_about_the_least_sure_videos():
    assert gates(FOUR, (0.0, 0.25, 0.5, 0.6, 1.0)) == pytest.approx([0.0, 0.65, 0.75, 0.75, 1.0])
    same = [predicted(number, "a", 0.8, 0.9) for number in range(4)]
    assert gates(same, (0.5,)) == [0.8], "none is less sure than the others, so none is written about"


def test_a_gate_is_the_one_that_is_right_most_often_and_of_equals_writes_least():
    found = choose(Answering(mode="gated"), {1.0: FOUR}, NAMES)
    # writing about the least sure one rights it; about two more changes nothing, and about the surest makes it wrong
    assert (found.mode, found.validation_accuracy, found.validation_reasoned) == ("gated", 0.75, 0.25)
    assert found.gate == pytest.approx(0.65)
    said = [answer(prediction, found, NAMES) for prediction in FOUR]
    assert [prediction.predicted for prediction in said] == ["a", "a", "b", "a"]
    assert said[2].probabilities == FOUR[2].answers["rationale"]
    assert said[0].probabilities == FOUR[0].answers["direct"]


def test_a_gate_keeps_to_what_may_be_written():
    found = choose(Answering(mode="gated", most_reasoned=0.2), {1.0: FOUR}, NAMES)
    assert (found.gate, found.validation_accuracy, found.validation_reasoned) == (0.0, 0.5, 0.0)
    assert Answering(mode="gated", most_reasoned=0.2).tried(tuned=False) == 3
    assert Answering(mode="gated", gate=0.9).tried(tuned=True) == 1
    assert Answering(mode="gated", strength=None).tried(tuned=True) == 44


@pytest.mark.parametrize("ladder", [("none",), ("blank", "blank")])
def test_a_rung_is_a_degradation_and_stands_once(ladder):
    with pytest.raises(ConfigError, match=r"model\.robustness\.ladder"):
        Robustness(ladder=ladder)
