"""What pre-training teaches must be true, and must not tell what is kept for the target domains."""

from __future__ import annotations

import numpy as np
from tools.tiny_vlm.conversations import EVERYTHING, ask

from rbft.worlds import language
from rbft.worlds.events import GENERAL, PAIRS, UNIONS
from rbft.worlds.scenes import general_scenes

RNG = np.random.default_rng(0)
SCENES = general_scenes(RNG, 1500, empty=0.1)
TURNS = [(clip, turn) for clip in range(len(SCENES)) for turn in ask(SCENES, clip, RNG, EVERYTHING, 8)]
TARGET_NAMES = {*PAIRS, *UNIONS}


def test_target_names_never_stand_beside_a_video():
    for _, turn in TURNS:
        words = {*turn.question.split(), *(word for text, _ in turn.answer for word in text.split())}
        assert not (turn.video and words & TARGET_NAMES)
    assert any(TARGET_NAMES & set(turn.question.split()) for _, turn in TURNS if not turn.video)


def test_what_is_learned_of_a_description_is_true_whatever_the_hint():
    hints = set()
    for clip, turn in TURNS:
        if turn.question not in (language.CAPTION, language.RATIONALE) and "say why" not in turn.question:
            continue
        truth = language.description(SCENES, clip)
        label = language.label_of(SCENES, clip)
        for text, learned in turn.answer:
            if not learned or text in ("so it is", label):
                continue
            if text.startswith("so it is"):
                hint = turn.question.split()[3]
                assert text == f"so it is {hint}"
                hints.add("right" if hint == label else "wrong" if hint in GENERAL else "no word")
            else:
                assert text in truth
    assert hints == {"right", "wrong", "no word"}


def test_a_conclusion_is_learned_only_behind_a_true_description():
    after = {True: 0, False: 0}
    for clip, turn in TURNS:
        if turn.question == language.RATIONALE:
            *told, (name, learned) = turn.answer
            assert name == language.label_of(SCENES, clip)
            assert learned == all(flag for _, flag in told)
            after[learned] += 1
    assert after[True] > after[False] > 0


def test_every_kind_of_question_is_asked_and_none_twice():
    asked = {turn.question for _, turn in TURNS}
    assert {language.CAPTION, language.LABEL, language.RATIONALE, language.COUNT} <= asked
    assert any("say why" in question for question in asked)
    assert any("which event is described" in question for question in asked)
    one = [turn.question for clip, turn in TURNS if clip == 3]
    assert len(one) == len(set(one)) > 2
