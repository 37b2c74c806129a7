"""What the language phases ask about a clip: a random mix of questions, each with the one right answer."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbft.worlds import language
from rbft.worlds.events import ACTIONS, GENERAL, PAIRS, UNIONS, VERBS
from rbft.worlds.scenes import Scenes

_NAMES = tuple(GENERAL)
_WORDS = tuple(word for word in language.vocabulary() if word.isalpha() and word not in (*PAIRS, *UNIONS))
_SLIP = 0.15


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: The user's text.
        answer: Pieces of the assistant's text, each with whether it is learned.
        video: Whether the video stands before the question.
    """

    question: str
    answer: tuple[tuple[str, bool], ...]
    video: bool = True


def _plain(turn: tuple[str, str], video: bool = True) -> Turn:
    question, answer = turn
    return Turn(question, ((answer, True),), video)


def _told(scenes: Scenes, clip: int, rng: np.random.Generator) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """The true description with the objects in any order, and whether all of it is learned.

    Now and then the first action is told wrongly and not learned: what follows must then come from the video and not
    from which actions were told, or seen, to follow each other.
    """
    count = int(scenes.num_objects[clip])
    if count == 0:
        return ((language.EMPTY_DESCRIPTION, True),), True
    pieces: list[tuple[str, bool]] = []
    right = True
    for slot in rng.permutation(count):
        first, second = language.actions_of(scenes, clip, slot)
        if first != second and rng.random() < _SLIP:
            wrong = VERBS[ACTIONS[rng.integers(len(ACTIONS))]]
            pieces += [(language.noun(scenes, clip, slot), True), (wrong, False), (f"then {VERBS[second]} .", True)]
            right = False
        else:
            pieces.append((language.sentence(scenes, clip, slot), True))
    return tuple(pieces), right


def _caption(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return Turn(language.CAPTION, _told(scenes, clip, rng)[0])


def _label(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    name = language.label_of(scenes, clip)
    return None if name is None else _plain((language.LABEL, name))


def _rationale(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    name = language.label_of(scenes, clip)
    if name is None:
        return None
    told, right = _told(scenes, clip, rng)
    lead, _, last = language.CONCLUSION.format(name=name).rpartition(" ")
    return Turn(language.RATIONALE, (*told, (lead, True), (last, right)))


def _hinted(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    """The name given may be right, another one, any word or no word at all; the description is the truth in every case.

    Only with many different words is the name repeated from the question and not looked up.
    """
    name = language.label_of(scenes, clip)
    kind = rng.random()
    if kind < 0.2:
        name = "".join(rng.choice(list(string.ascii_lowercase), rng.integers(3, 7)))
    elif kind < 0.45:
        name = _WORDS[rng.integers(len(_WORDS))]
    elif kind < 0.65 or name is None or name == language.NOTHING:
        name = _NAMES[rng.integers(len(_NAMES))]
    told, _ = _told(scenes, clip, rng)
    return Turn(language.HINTED.format(name=name), (*told, (language.CONCLUSION.format(name=name), True)))


def _one(turns: list[tuple[str, str]], rng: np.random.Generator) -> Turn | None:
    return _plain(turns[rng.integers(len(turns))]) if turns else None


def _doing(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return _one(language.doing_questions(scenes, clip), rng)


def _thing(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return _one(language.thing_questions(scenes, clip), rng)


def _absent(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return _one(language.absent_questions(scenes, clip), rng)


def _glossary(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return _plain(language.glossary_turn(rng), video=False)


def _judge(scenes: Scenes, clip: int, rng: np.random.Generator) -> Turn | None:
    return _plain(language.judge_turn(rng), video=False)


_KINDS: tuple[Callable[[Scenes, int, np.random.Generator], Turn | None], ...] = (
    _doing,
    _thing,
    _absent,
    _caption,
    _label,
    _rationale,
    _hinted,
    _glossary,
    _judge,
)
#: Weights of the kinds above. Telling the doings of two objects apart is the hard part: questions about nothing else
#: teach it in minutes, whole descriptions do not.
QUESTIONS_FIRST = (8.0, 1.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
EVERYTHING = (3.0, 0.6, 0.6, 2.5, 1.0, 1.3, 1.0, 0.6, 1.0)


def ask(scenes: Scenes, clip: int, rng: np.random.Generator, weights: tuple[float, ...], count: int) -> list[Turn]:
    """Up to `count` different turns about a clip, of kinds drawn by `weights`."""
    share = np.array(weights) / sum(weights)
    drawn = (_KINDS[kind](scenes, clip, rng) for kind in rng.choice(len(_KINDS), count, p=share))
    return list({turn.question: turn for turn in drawn if turn is not None}.values())
