"""Actions, ordered pairs of actions (events), and which names an event has in which domain."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Domain = Literal["pairs", "unions"]
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

TARGETS: dict[Domain, dict[str, tuple[Event, ...]]] = {
    "pairs": {name: (event,) for name, event in PAIRS.items()},
    "unions": UNIONS,
}
#: The events that each name of any domain stands for.
MEANINGS: dict[str, tuple[Event, ...]] = (
    {name: (event,) for name, event in GENERAL.items()} | TARGETS["pairs"] | TARGETS["unions"]
)
#: Everything a clip of pre-training may show.
SEEN: tuple[Event, ...] = (
    *GENERAL.values(),
    *(event for events in UNIONS.values() for event in events),
    *UNNAMED,
)


def action_ids(events: tuple[Event, ...]) -> IntArray:
    """Events as indices into `ACTIONS`, shape (len(events), 2)."""
    return np.array([[ACTIONS.index(action) for action in event] for event in events], dtype=np.int64)


def phrase(first: str, second: str) -> str:
    """How an object's doing is written: "goes left then grows", or "waits" for one action throughout."""
    return VERBS[first] if first == second else f"{VERBS[first]} then {VERBS[second]}"
