"""Which events there are, and which the model must never have been shown."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from rbft.worlds.events import ACTIONS, GENERAL, MEANINGS, PAIRS, SEEN, UNIONS, UNNAMED, phrase
from rbft.worlds.scenes import general_scenes

UNION_EVENTS = [event for events in UNIONS.values() for event in events]


def test_events_are_all_pairs_of_actions_once():
    everything = [*GENERAL.values(), *PAIRS.values(), *UNION_EVENTS, *UNNAMED]
    assert sorted(everything) == sorted(itertools.permutations(ACTIONS, 2))


def test_no_action_gives_a_set_of_events_away():
    for events in (list(GENERAL.values()), list(PAIRS.values()), UNION_EVENTS, list(UNNAMED)):
        for place in (0, 1):
            counts = Counter(event[place] for event in events)
            assert set(counts) == set(ACTIONS)
            assert len(set(counts.values())) == 1


def test_the_events_of_a_union_share_no_first_and_no_second_action():
    for events in UNIONS.values():
        assert len({first for first, _ in events}) == len({second for _, second in events}) == 4


def test_every_named_event_has_one_name():
    named = [event for events in MEANINGS.values() for event in events]
    assert len(named) == len(set(named)) == 40
    assert not set(named) & set(UNNAMED)


def test_general_clips_never_show_a_pair_kept_for_the_target_domain():
    assert not set(PAIRS.values()) & set(SEEN)
    scenes = general_scenes(np.random.default_rng(0), 5000)
    shown = {
        (ACTIONS[first], ACTIONS[second])
        for clip in range(len(scenes))
        for first, second in scenes.actions[clip, : scenes.num_objects[clip]]
    }
    assert {event for event in shown if event[0] != event[1]} == set(SEEN)


def test_a_second_object_beside_a_named_event_has_none():
    scenes = general_scenes(np.random.default_rng(0), 2000)
    named = np.nonzero((scenes.event >= 0) & (scenes.num_objects == 2))[0]
    assert len(named) > 300
    for clip in named:
        first, second = ((ACTIONS[a], ACTIONS[b]) for a, b in scenes.actions[clip])
        assert list(GENERAL.values())[scenes.event[clip]] == first
        assert second in UNNAMED


def test_phrase():
    assert phrase("left", "grow") == "goes left then grows"
    assert phrase("wait", "wait") == "waits"
