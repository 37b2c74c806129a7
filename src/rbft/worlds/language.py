"""What is said about clips: descriptions, questions and answers, and the wordings of the prompts."""

from __future__ import annotations

import numpy as np

from rbft.worlds.events import ACTIONS, GENERAL, MEANINGS, UNNAMED, VERBS, Event, phrase
from rbft.worlds.scenes import COLOURS, SHAPES, Scenes

# The wordings below are those that the built-in model was pre-trained on; experiment files quote them as they stand.
CAPTION = "describe the video ."
LABEL = "which event is it ?"
RATIONALE = "describe the video and answer which event is it ?"
HINTED = "the event is {name} . describe the video and say why ."
CONCLUSION = "so it is {name}"
COUNT = "how many ?"
# Without a video:
WORDS_OF_NAME = "what is {name} ?"
NAME_OF_WORDS = "what event is {words} ?"
JUDGE = "{description} which event is described ?"
CONCLUDE = "{description} what follows ?"
CONCLUDE_HINTED = "the event is {name} . {description} what follows ?"

NOTHING = "nothing"
EMPTY_DESCRIPTION = "nothing happens ."
NUMBERS = ("none", "one", "two")
COLOUR_NAMES = tuple(COLOURS)

_NAMES = tuple(MEANINGS)
_NAMED_EVENTS = tuple((name, event) for name, events in MEANINGS.items() for event in events)


def noun(scenes: Scenes, clip: int, slot: int) -> str:
    """An object, as in: the red circle."""
    return f"the {COLOUR_NAMES[scenes.colours[clip, slot]]} {SHAPES[scenes.shapes[clip, slot]]}"


def actions_of(scenes: Scenes, clip: int, slot: int) -> Event:
    """The names of an object's first and second action."""
    first, second = scenes.actions[clip, slot]
    return ACTIONS[first], ACTIONS[second]


def sentence(scenes: Scenes, clip: int, slot: int) -> str:
    """One object and what it does, as in: the red circle goes left then grows ."""
    return f"{noun(scenes, clip, slot)} {phrase(*actions_of(scenes, clip, slot))} ."


def description(scenes: Scenes, clip: int, order: tuple[int, ...] | None = None) -> str:
    """One sentence an object, in slot order or the order given; `EMPTY_DESCRIPTION` if there is none."""
    slots = order if order is not None else tuple(range(scenes.num_objects[clip]))
    return " ".join(sentence(scenes, clip, slot) for slot in slots) or EMPTY_DESCRIPTION


def meaning(name: str) -> str:
    """What a name means, in words; the events of a union are joined by "or"."""
    return " or ".join(phrase(*event) for event in MEANINGS[name])


def doing_questions(scenes: Scenes, clip: int) -> list[tuple[str, str]]:
    """What each object of a clip does first, last and altogether."""
    turns: list[tuple[str, str]] = []
    for slot in range(scenes.num_objects[clip]):
        colour = COLOUR_NAMES[scenes.colours[clip, slot]]
        first, second = actions_of(scenes, clip, slot)
        turns.append((f"what does {colour} do first ?", VERBS[first]))
        turns.append((f"what does {colour} do last ?", VERBS[second]))
        turns.append((f"what does {colour} do ?", phrase(first, second)))
    return turns


def thing_questions(scenes: Scenes, clip: int) -> list[tuple[str, str]]:
    """How many objects a clip has, and what shapes they have."""
    count = int(scenes.num_objects[clip])
    shapes = [
        (f"what is {COLOUR_NAMES[scenes.colours[clip, slot]]} ?", SHAPES[scenes.shapes[clip, slot]])
        for slot in range(count)
    ]
    return [(COUNT, NUMBERS[count]), *shapes]


def absent_questions(scenes: Scenes, clip: int) -> list[tuple[str, str]]:
    """Questions about colours that the clip does not hold; the answer is `NOTHING`."""
    present = {COLOUR_NAMES[scenes.colours[clip, slot]] for slot in range(scenes.num_objects[clip])}
    absent = [colour for colour in COLOUR_NAMES if colour not in present]
    return [
        (question.format(colour=colour), NOTHING)
        for colour in absent
        for question in (
            "what is {colour} ?",
            "what does {colour} do ?",
            "what does {colour} do first ?",
            "what does {colour} do last ?",
        )
    ]


def label_of(scenes: Scenes, clip: int) -> str | None:
    """The answer to `LABEL` for a clip of `general_scenes`: None where it has none."""
    if scenes.num_objects[clip] == 0:
        return NOTHING
    event = int(scenes.event[clip])
    return tuple(GENERAL)[event] if event >= 0 else None


def glossary_turn(rng: np.random.Generator) -> tuple[str, str]:
    """A text-only question about the meaning of a name, or the name of a meaning; the names of all domains."""
    name, words = _named_words(rng)
    if rng.random() < 0.4:
        return WORDS_OF_NAME.format(name=name), meaning(name)
    return NAME_OF_WORDS.format(words=words), name


def judge_turn(rng: np.random.Generator) -> tuple[str, str]:
    """A text-only question: which event does this description describe?

    The description has one named object and, in half of the cases, an unnamed one beside it, in any order. One question
    in four names an event of its own, which need not be the one described; it is then what follows.
    """
    name, words = _named_words(rng)
    colours = rng.permutation(len(COLOUR_NAMES))
    actions = [words]
    if rng.random() < 0.5:
        actions.append(phrase(*UNNAMED[rng.integers(len(UNNAMED))]))
    sentences = [
        f"the {COLOUR_NAMES[colours[i]]} {SHAPES[rng.integers(len(SHAPES))]} {what} ." for i, what in enumerate(actions)
    ]
    text = " ".join(sentences[i] for i in rng.permutation(len(sentences)))
    kind = rng.integers(4)
    if kind < 2:
        return JUDGE.format(description=text), name
    if kind == 2:
        return CONCLUDE.format(description=text), CONCLUSION.format(name=name)
    hint = _NAMES[rng.integers(len(_NAMES))]
    return CONCLUDE_HINTED.format(name=hint, description=text), CONCLUSION.format(name=hint)


def _named_words(rng: np.random.Generator) -> tuple[str, str]:
    """A name of any domain and the words of one of its events; every event equally often."""
    name, event = _NAMED_EVENTS[rng.integers(len(_NAMED_EVENTS))]
    return name, phrase(*event)


def vocabulary() -> list[str]:
    """Every word that any description, question or answer uses, sorted."""
    questions = [CAPTION, LABEL, RATIONALE, HINTED, CONCLUSION, COUNT, WORDS_OF_NAME, NAME_OF_WORDS, JUDGE, CONCLUDE]
    texts = [text.format(name="", words="", description="") if "{" in text else text for text in questions]
    texts += [*COLOUR_NAMES, *SHAPES, *VERBS.values(), *_NAMES, *NUMBERS, NOTHING, EMPTY_DESCRIPTION]
    texts.append("what does do first last the then or . ?")
    return sorted({word for text in texts for word in text.split()})
