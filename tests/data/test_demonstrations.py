"""Labelled videos as text in the question: which are told of, in which order, and what is refused."""

from __future__ import annotations

import pytest

from rbft.data.demonstrations import DemonstratedBook, Demonstrations
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError, DataError

BOOK = PromptBook(Prompts(label_question="which?", rationale_question="why?", separator=" "), LabelSet(("a", "b", "c")))
TEXTS = [("one", "a"), ("two", "a"), ("three", "b"), ("four", "c"), ("five", "c"), ("six", "a")]


def test_classes_take_turns():
    told = DemonstratedBook(BOOK, TEXTS, Demonstrations(question="{demonstrations}|{question}", separator="; "))
    expected = ["one", "a"], ["three", "b"], ["four", "c"], ["two", "a"], ["five", "c"], ["six", "a"]
    assert told.told == [f"{text} Classification: {name}" for text, name in expected]
    assert told.label_prompt().question == "; ".join(told.told) + "|which?"
    assert told.blind_prompt().question == "; ".join(told.told) + "|why?"
    assert told.writing_prompt("a", hinted=True) == BOOK.writing_prompt("a", hinted=True)


def test_no_more_of_a_class_than_asked_for():
    few = Demonstrations(per_class=1)
    assert [text.split()[0] for text in DemonstratedBook(BOOK, TEXTS, few).told] == ["one", "three", "four"]
    videos = [label for _, label in TEXTS]
    assert (few.most(videos), Demonstrations().most(videos), Demonstrations(per_class=2).most(videos)) == (3, 6, 5)


def test_braces_in_a_description_are_text():
    told = DemonstratedBook(BOOK, [("{question} {labels}", "a")], Demonstrations())
    assert "{question} {labels} Classification: a\n\nwhich?" in told.label_prompt().question


@pytest.mark.parametrize("settings", [{"per_class": 0}, {"question": "{question}"}, {"question": "{demonstrations}"}])
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError, match=r"model\.demonstrations\."):
        Demonstrations(**settings)


def test_without_a_description_there_is_nothing_to_tell():
    with pytest.raises(DataError, match="no description"):
        DemonstratedBook(BOOK, [], Demonstrations())
