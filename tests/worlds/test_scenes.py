"""What objects do must show in where they are, how large they are and whether they can be seen."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from rbft.worlds.events import ACTIONS, PAIRS, action_ids
from rbft.worlds.scenes import (
    COLOURS,
    MAX_RADIUS,
    MIN_RADIUS,
    frame_times,
    general_scenes,
    sample_scenes,
    sample_times,
    target_scenes,
)

MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def alone(first: str, second: str, times: np.ndarray | None = None, n: int = 200):
    actions = np.tile(action_ids(((first, second),)), (n, 2, 1))
    times = None if times is None else np.tile(times, (n, 1)).astype(np.float32)
    return sample_scenes(np.random.default_rng(1), actions, np.ones(n, dtype=np.int64), times=times)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", [0, 1])
def test_an_action_shows_as_it_is_called(action: str, place: int):
    other = "wait" if action != "wait" else "up"
    scenes = alone(*((action, other) if place == 0 else (other, action)), times=np.arange(8.0))
    during = (0, 2) if place == 0 else (5, 7)  # the switch lies at 3, 4 or 5
    step = scenes.centres[:, 0, during[1]] - scenes.centres[:, 0, during[0]]
    direction = np.array(MOVES.get(action, (0, 0)))
    assert (np.abs(step * (direction == 0)) < 1e-4).all()
    if direction.any():
        assert ((step * direction).sum(-1) > 6).all()
    growth = scenes.radii[:, 0, during[1]] / scenes.radii[:, 0, during[0]]
    expected = {"grow": growth > 1.2, "shrink": growth < 0.85}.get(action, np.abs(growth - 1) < 1e-5)
    assert expected.all()
    blinks = ~scenes.visible[:, 0, during[0] : during[1] + 1].all(-1)
    assert (blinks == (action == "blink")).all()


def test_sizes_say_nothing_about_what_happened_before():
    grown = alone("grow", "down").radii[:, 0, -1]
    still = alone("wait", "down").radii[:, 0, -1]
    small = alone("shrink", "wait").radii[:, 0, -1]
    assert (still > np.median(grown)).mean() > 0.1
    assert (still < np.median(small) + 1).mean() > 0.05


def test_everything_stays_in_bounds():
    scenes = general_scenes(np.random.default_rng(0), 3000)
    assert scenes.radii.min() > MIN_RADIUS - 0.01
    assert scenes.radii.max() < MAX_RADIUS + 0.01
    assert scenes.centres.min() > 8.9
    assert scenes.centres.max() < 55.1
    assert (scenes.colours[:, 0] != scenes.colours[:, 1]).all()
    assert scenes.colours.max() < len(COLOURS)


def test_frames_of_one_step_agree_on_blinking():
    """However many frames a file has, the eight in the middle of its eighths blink like the model's eight."""
    whole = alone("blink", "left", np.arange(8.0))
    for count in range(16, 33):
        picked = np.floor((np.arange(8) + 0.5) * count / 8)
        scenes = alone("blink", "left", frame_times(picked, count))
        np.testing.assert_array_equal(scenes.visible, whole.visible)


def test_sampled_times_lie_near_the_steps():
    times = sample_times(np.random.default_rng(0), 500)
    assert times.shape == (500, 8)
    assert np.abs(times - np.arange(8)).max() <= 0.5
    assert len(np.unique(times)) > 20


def test_target_clips_show_their_label():
    labels = np.arange(400) % len(PAIRS)
    scenes = target_scenes(np.random.default_rng(0), labels, "pairs")
    np.testing.assert_array_equal(scenes.actions[:, 0], action_ids(tuple(PAIRS.values()))[labels])
    assert 0.4 < (scenes.num_objects == 2).mean() < 0.6
    chosen = target_scenes(np.random.default_rng(0), labels % 4, "unions", events=np.full(400, 3))
    assert (chosen.event == 3).all()


def test_empty_clips_have_nothing_to_see_and_no_name():
    scenes = general_scenes(np.random.default_rng(0), 200, empty=1.0)
    assert not scenes.visible.any()
    assert (scenes.event == -1).all()


def test_same_seed_same_scenes_and_rows_can_be_taken():
    first, second = (general_scenes(np.random.default_rng(5), 50) for _ in range(2))
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
        np.testing.assert_array_equal(getattr(first.take(slice(3, 5)), field.name), getattr(first, field.name)[3:5])
