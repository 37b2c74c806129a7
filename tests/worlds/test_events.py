"""Which events there are, and which the model must never have been shown."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from rbft.worlds.events import (
    ACTIONS,
    GENERAL,
    MEANINGS,
    PAIRS,
    RULES,
    SEEN,
    UNIONS,
    UNNAMED,
    WIDE_UNIONS,
    phrase,
)
from rbft.worlds.language import vocabulary
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


def test_a_wide_union_says_nothing_by_one_action_alone():
    everything = [event for events in WIDE_UNIONS.values() for event in events]
    assert len(everything) == len(set(everything)) == 24
    assert set(UNION_EVENTS) < set(everything) < {*UNION_EVENTS, *GENERAL.values()}
    for place in (0, 1):
        assert Counter(event[place] for event in everything) == dict.fromkeys(ACTIONS, 3)
        for events in WIDE_UNIONS.values():
            assert len({event[place] for event in events}) == 6
    assert not set(WIDE_UNIONS) & set(vocabulary()), "the built-in model knows none of these words"


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


def test_rules_are_what_they_say_and_about_events_that_pre_training_shows():
    moves = {"left", "right", "up", "down"}
    count = {
        name: {sum(action in moves for event in scene for action in event) for scene in scenes}
        for name, scenes in RULES["majority"].items()
    }
    assert count == {"roam": {3, 4}, "even": {2}, "settle": {0, 1}}
    relations = RULES["relations"]
    assert all(one == other for one, other in relations["twin"])
    assert all(one == other[::-1] for one, other in relations["swap"])
    assert all(len({*one, *other}) == 4 for one, other in relations["apart"])
    assert all(
        len({*one, *other}) == 3 and (one[1] == other[0]) != (other[1] == one[0]) for one, other in relations["relay"]
    )
    for names in RULES.values():
        scenes = [scene for some in names.values() for scene in some]
        assert len(scenes) == len(set(scenes))
        assert {event for scene in scenes for event in scene} <= set(SEEN)
        assert not set(names) & set(vocabulary()), "the built-in model knows none of these words"
