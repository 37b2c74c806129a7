"""Texts must be true of their clips."""

from __future__ import annotations

import numpy as np

from rbft.worlds import language
from rbft.worlds.events import GENERAL, PAIRS, UNIONS
from rbft.worlds.scenes import general_scenes

SCENES = general_scenes(np.random.default_rng(0), 300, empty=0.1)


def test_a_description_tells_every_object():
    for clip in range(len(SCENES)):
        text = language.description(SCENES, clip)
        if SCENES.num_objects[clip] == 0:
            assert text == "nothing happens ."
            continue
        sentences = [language.sentence(SCENES, clip, slot) for slot in range(SCENES.num_objects[clip])]
        assert text == " ".join(sentences)
    two = int(np.nonzero(SCENES.num_objects == 2)[0][0])
    swapped = language.description(SCENES, two, (1, 0))
    assert swapped == f"{language.sentence(SCENES, two, 1)} {language.sentence(SCENES, two, 0)}"


def test_answers_about_objects_are_parts_of_the_description():
    for clip in range(len(SCENES)):
        text = language.description(SCENES, clip)
        questions = [*language.doing_questions(SCENES, clip), *language.thing_questions(SCENES, clip)]
        for question, answer in questions:
            if question == language.COUNT:
                assert answer == ("none", "one", "two")[SCENES.num_objects[clip]]
            else:
                assert answer in text
                assert question.split()[2] in text
        for question, answer in language.absent_questions(SCENES, clip):
            assert answer == "nothing"
            colour = next(word for word in question.split() if word in language.COLOUR_NAMES)
            assert colour not in text


def test_labels():
    for clip in range(len(SCENES)):
        label = language.label_of(SCENES, clip)
        if SCENES.num_objects[clip] == 0:
            assert label == "nothing"
        elif SCENES.event[clip] >= 0:
            assert language.actions_of(SCENES, clip, 0) == GENERAL[label]
        else:
            assert label is None


def test_glossary_and_judge_know_every_name():
    rng = np.random.default_rng(0)
    glossary = [language.glossary_turn(rng) for _ in range(2000)]
    everything = {*GENERAL, *PAIRS, *UNIONS}
    assert {answer for question, answer in glossary if question.startswith("what event")} == everything
    assert {question.split()[2] for question, _ in glossary if question.startswith("what is")} == everything
    judged = [language.judge_turn(rng) for _ in range(2000)]
    assert {answer.split()[-1] for _, answer in judged} == everything
    for question, answer in judged:
        name = answer.split()[-1]
        if question.startswith("the event is"):
            assert question.split()[3] == name
        else:
            assert any(meaning in question for meaning in language.meaning(name).split(" or "))
    hinted = [question for question, _ in judged if question.startswith("the event is")]
    assert 0.2 < len(hinted) / len(judged) < 0.3


def test_meaning_of_a_union_is_all_its_events():
    assert language.meaning("patrol") == "goes left then goes right"
    assert language.meaning("alarm").count(" or ") == 3


def test_the_vocabulary_holds_every_word_that_is_used():
    known = set(language.vocabulary())
    rng = np.random.default_rng(0)
    texts = [language.CAPTION, language.LABEL, language.RATIONALE, language.HINTED.format(name="")]
    for clip in range(len(SCENES)):
        turns = [*language.doing_questions(SCENES, clip), *language.thing_questions(SCENES, clip)]
        turns += language.absent_questions(SCENES, clip)
        turns += [language.glossary_turn(rng), language.judge_turn(rng)]
        texts += [language.description(SCENES, clip), *(text for turn in turns for text in turn)]
    assert {word for text in texts for word in text.split()} <= known
