"""The checks of the text alone: stated class, leaks, repetition, cuts; what they find and what they leave alone."""

from __future__ import annotations

import dataclasses

import pytest

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError
from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.checks.leak import Leak
from rbft.rationales.checks.text import LabelParse, Repetition, Truncation
from rbft.rationales.checks.wording import MASK, LabelMask, words
from rbft.rationales.store import Rationale

BOOK = PromptBook(Prompts(), LabelSet(("Fall", "no_fall", "HorseRiding")))
PROSE = (
    "An elderly man walks slowly from the kitchen towards the sofa. He stumbles over the edge of a carpet, loses his "
    "balance and goes down on his left side. For several seconds he lies still; then a woman hurries in and kneels "
    "next to him. Nothing else in the room moves, and the lamp on the table stays lit until the recording ends."
)


def rationale(text: str, **changes) -> Rationale:
    made = Rationale("a", 0, "a.mp4", "Fall", "00", "blind", "me", text, "Fall", text, False)
    return dataclasses.replace(made, **changes)


def score(check: Check, *rationales: Rationale, book: PromptBook = BOOK) -> list[float | None]:
    return check.scores(Material(rationales, book))


def test_the_stated_class_is_compared():
    found = score(LabelParse(), rationale("It is so."), rationale("x", stated="no_fall"), rationale("x", stated=None))
    assert found == [1.0, 0.0, 0.0]


def test_nothing_is_judged_in_an_empty_text():
    for check in (LabelParse(), Leak(), Repetition(), Truncation()):
        assert score(check, rationale(""), rationale(PROSE)) == [None, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "The ground-truth is clear. A man falls.",
        "Ground truth says so.",
        "Given the provided label, the man must have fallen.",
        "Since the label is given as such, he falls.",
        "This video is labeled as an accident.",
        "According to the annotation, he fell.",
        "The prompt states what happened.",
        "As told in the question, he fell.",
        "I was told that he fell.",
        # the sentence of the hinted question that hands over the class, with its own and with another class
        "He walks. It is known to show: fall.",
        "it is known to show horse riding",
    ],
)
def test_leaks_are_found(text):
    assert score(Leak(), rationale(text)) == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "The video shows one man. He falls.",
        "A man with a label on his shirt reads a question from a sheet and gives the answer.",
        "It is known for its carpets.",
        "The correct posture is lost.",
        "Among the provided classes this is closest to a fall.",
    ],
)
def test_descriptions_are_no_leaks(text):
    assert score(Leak(), rationale(text)) == [1.0]


def test_more_phrases_and_the_label_can_be_forbidden():
    assert score(Leak(phrases=["laut Vorgabe"]), rationale("Er fällt LAUT VORGABE hin.")) == [0.0]
    assert score(Leak(), rationale("Er fällt laut Vorgabe hin.")) == [1.0]
    falls = rationale("He falls.")
    assert score(Leak(), falls) == [1.0]
    assert score(Leak(label_words=True), falls, dataclasses.replace(falls, label="HorseRiding")) == [0.0, 1.0]


def test_a_hint_of_one_word_is_no_sentence():
    book = PromptBook(Prompts(hinted_question="Why {label}?"), BOOK.labels)
    assert score(Leak(), rationale("why fall"), book=book) == [1.0]


def test_repetition_falls_with_every_round():
    rounds = [score(Repetition(), rationale(" ".join([PROSE] * n)))[0] for n in (1, 2, 3, 8)]
    assert all(value is not None for value in rounds)
    assert rounds == sorted(rounds, reverse=True)
    assert rounds[0] == 1.0
    assert rounds[1] < Repetition().threshold


@pytest.mark.parametrize("text", ["no " * 60, "haha" * 50, "他走过去" * 30, PROSE + " and then he goes on" * 30])
def test_loops_are_found(text):
    value = score(Repetition(), rationale(text.strip()))[0]
    assert value is not None
    assert value < Repetition().threshold


@pytest.mark.parametrize("text", ["Yes.", "He falls.", PROSE, "the red circle goes left . the blue ring goes left ."])
def test_short_and_plain_texts_do_not_repeat(text):
    value = score(Repetition(), rationale(text))[0]
    assert value is not None
    assert value >= Repetition().threshold


def test_cuts_are_found():
    check = Truncation()
    assert score(check, rationale("He falls.", truncated=True)) == [0.0]
    assert score(check, rationale("He walks to the", stated=None)) == [0.0]
    # whoever states the class came to an end
    assert score(check, rationale("- walks\n- falls")) == [1.0]
    torsos = ["A white pickup truck stops, then a white pick", "He walks,", "- walks\n-", "He walks to the"]
    assert score(check, *(rationale(text) for text in torsos)) == [0.0] * len(torsos)
    assert score(check, rationale("two dogs play and he pets a dog"), rationale("He sits down")) == [1.0, 1.0]
    ends = ["He falls.", 'She says "no!"', "他跌倒了。", "What now?", "(He falls.)", "He falls ."]
    assert score(check, *(rationale(text, stated=None) for text in ends)) == [1.0] * len(ends)


def test_label_words_are_hidden_whole_and_longest_first():
    mask = LabelMask(["fall", "no fall", "pull_up", "up"])
    assert mask.hide("No fall; he FALLS up, a pull-up, falling, but rainfall and waterfalls stay") == (
        f"{MASK}; he {MASK} {MASK}, a {MASK}, {MASK}, but rainfall and waterfalls stay"
    )
    assert mask.found("Fall, then no  fall") == ["Fall", "no  fall"]


def test_words_are_of_any_script():
    assert words("Don't stop-- the KÜCHE, 他 走!") == ["don't", "stop", "the", "küche", "他", "走"]


@pytest.mark.parametrize("check", [Contradiction(), Grounding()])
def test_checks_that_need_a_model_say_so(check):
    with pytest.raises(ConfigError, match=f"the check '{check.name}' asks a model"):
        score(check, rationale(PROSE))


def test_thresholds_are_shares():
    with pytest.raises(ConfigError, match=r"^model\.checks: the threshold 1\.5 of Leak must lie in \[0, 1\]"):
        Leak(threshold=1.5)
