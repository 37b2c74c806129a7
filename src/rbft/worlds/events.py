"""Actions, ordered pairs of actions (events), and which names an event has in which domain."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Domain = Literal["pairs", "unions", "relations", "majority", "wide_unions"]
IntArray = npt.NDArray[np.int64]

VERBS: dict[str, str] = {
    "wait": "waits",
    "left": "goes left",
    "right": "goes right",
    "up": "goes up",
    "down": "goes down",
    "grow": "grows",
    "shrink": "shrinks",
    "blink": "blinks",
}
ACTIONS: tuple[str, ...] = tuple(VERBS)
Event = tuple[str, str]  # first action, second action
Scene = tuple[Event, Event]  # of the first object, of the second

# The 56 ordered pairs of two different actions fall into four sets. In each set every action comes first equally
# often, and second equally often, so that no single action gives away whether an event has a name, or which.

#: Events with a name that pre-training shows and asks for.
GENERAL: dict[str, Event] = {
    "takeoff": ("right", "up"),
    "landing": ("left", "down"),
    "bloom": ("left", "grow"),
    "fade": ("right", "shrink"),
    "hop": ("down", "up"),
    "dive": ("wait", "down"),
    "sweep": ("blink", "left"),
    "pulse": ("grow", "blink"),
    "depart": ("up", "left"),
    "arrive": ("grow", "right"),
    "launch": ("shrink", "grow"),
    "drop": ("down", "shrink"),
    "leave": ("shrink", "right"),
    "drift": ("blink", "wait"),
    "surge": ("up", "wait"),
    "spark": ("wait", "blink"),
}
#: Events that no pre-training clip shows; their names are known in words only.
PAIRS: dict[str, Event] = {
    "patrol": ("left", "right"),
    "parade": ("right", "left"),
    "beacon": ("up", "blink"),
    "signal": ("blink", "up"),
    "anchor": ("grow", "down"),
    "lift": ("down", "grow"),
    "collapse": ("shrink", "wait"),
    "breath": ("wait", "shrink"),
}
#: Names that each stand for four events; pre-training shows the events and knows the names in words only.
UNIONS: dict[str, tuple[Event, ...]] = {
    "alarm": (("wait", "up"), ("left", "shrink"), ("right", "wait"), ("up", "down")),
    "visit": (("wait", "grow"), ("left", "blink"), ("up", "shrink"), ("down", "left")),
    "play": (("right", "blink"), ("grow", "wait"), ("shrink", "up"), ("blink", "right")),
    "rest": (("down", "right"), ("grow", "left"), ("shrink", "down"), ("blink", "grow")),
}
#: Events without a name: what the second object does in a clip whose first object has a named event.
UNNAMED: tuple[Event, ...] = (
    ("wait", "left"),
    ("wait", "right"),
    ("left", "wait"),
    ("left", "up"),
    ("right", "down"),
    ("right", "grow"),
    ("up", "right"),
    ("up", "grow"),
    ("down", "wait"),
    ("down", "blink"),
    ("grow", "up"),
    ("grow", "shrink"),
    ("shrink", "left"),
    ("shrink", "blink"),
    ("blink", "down"),
    ("blink", "shrink"),
)

#: Names that each stand for six events: those of the unions, and eight general ones. Pre-training shows the events and
#: knows nothing of the names. Every action comes first in three classes, and second in three.
WIDE_UNIONS: dict[str, tuple[Event, ...]] = {
    "flute": (
        ("wait", "up"),
        ("left", "blink"),
        ("up", "down"),
        ("down", "shrink"),
        ("grow", "wait"),
        ("blink", "grow"),
    ),
    "drum": (
        ("wait", "grow"),
        ("right", "blink"),
        ("up", "wait"),
        ("grow", "left"),
        ("shrink", "up"),
        ("blink", "right"),
    ),
    "harp": (
        ("wait", "down"),
        ("left", "grow"),
        ("right", "up"),
        ("up", "shrink"),
        ("down", "left"),
        ("shrink", "right"),
    ),
    "horn": (
        ("left", "shrink"),
        ("right", "wait"),
        ("down", "right"),
        ("grow", "blink"),
        ("shrink", "down"),
        ("blink", "left"),
    ),
}

#: Domains in which a class is an event, or any of some events, of one object, and whose names pre-training knows.
NAMED_TARGETS: dict[Domain, dict[str, tuple[Event, ...]]] = {
    "pairs": {name: (event,) for name, event in PAIRS.items()},
    "unions": UNIONS,
}
#: The same, and those whose names mean nothing to the built-in model.
TARGETS: dict[Domain, dict[str, tuple[Event, ...]]] = {**NAMED_TARGETS, "wide_unions": WIDE_UNIONS}
#: The events that each name stands for which pre-training knows.
MEANINGS: dict[str, tuple[Event, ...]] = (
    {name: (event,) for name, event in GENERAL.items()} | NAMED_TARGETS["pairs"] | NAMED_TARGETS["unions"]
)
#: Everything a clip of pre-training may show.
SEEN: tuple[Event, ...] = (
    *GENERAL.values(),
    *(event for events in UNIONS.values() for event in events),
    *UNNAMED,
)

_MOVES = ("left", "right", "up", "down")


def _relation(first: Event, second: Event) -> str | None:
    if first == second:
        return "twin"
    if first == second[::-1]:
        return "swap"
    actions = {*first, *second}
    if len(actions) == 4:
        return "apart"
    follows = first[1] == second[0] or second[1] == first[0]
    return "relay" if follows and len(actions) == 3 else None


def _majority(first: Event, second: Event) -> str:
    moves = sum(action in _MOVES for action in (*first, *second))
    return "roam" if moves > 2 else "even" if moves == 2 else "settle"


def _sorted_by(rule: Callable[[Event, Event], str | None], names: tuple[str, ...]) -> dict[str, tuple[Scene, ...]]:
    both = list(itertools.product(SEEN, repeat=2))
    return {name: tuple((first, second) for first, second in both if rule(first, second) == name) for name in names}


#: Domains in which a class is a rule about what two objects do, each an event that pre-training shows; the built-in
#: model knows neither the rules nor the words. `relations`: both do the same; each does what the other does, in the
#: other order; one goes on with what the other ended with; four different actions. `majority`: of the four actions,
#: more than half are movements from place to place, half, or fewer.
RULES: dict[Domain, dict[str, tuple[Scene, ...]]] = {
    "relations": _sorted_by(_relation, ("twin", "swap", "relay", "apart")),
    "majority": _sorted_by(_majority, ("roam", "even", "settle")),
}
#: The classes of every domain, in their order.
CLASSES: dict[Domain, tuple[str, ...]] = {
    **{domain: tuple(names) for domain, names in TARGETS.items()},
    **{domain: tuple(names) for domain, names in RULES.items()},
}


def action_ids(events: tuple[Event, ...]) -> IntArray:
    """Events as indices into `ACTIONS`, shape (len(events), 2)."""
    return np.array([[ACTIONS.index(action) for action in event] for event in events], dtype=np.int64)


def phrase(first: str, second: str) -> str:
    """How an object's doing is written: "goes left then grows", or "waits" for one action throughout."""
    return VERBS[first] if first == second else f"{VERBS[first]} then {VERBS[second]}"
