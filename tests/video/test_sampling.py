"""Which frames are sampled, for any video and any request."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbft.errors import ConfigError
from rbft.video.sampling import FrameSampling, Timeline

lengths = st.integers(1, 5000)
counts = st.integers(1, 200)
modes = st.sampled_from(["uniform", "random"])


def at_rate(num_frames: int, fps: float) -> Timeline:
    """Frames that come at one rate."""
    return Timeline(num_frames, num_frames / fps)


@given(lengths, counts, modes, st.integers(0, 2**32))
def test_a_number_of_frames(available: int, count: int, mode: Any, seed: int) -> None:
    indices = FrameSampling(num_frames=count, mode=mode).indices(at_rate(available, 25.0), np.random.default_rng(seed))
    assert len(indices) == count
    assert all(type(i) is int and 0 <= i < available for i in indices)
    assert all(a <= b for a, b in pairwise(indices))
    # One from each of `count` equal segments: frame i of a video covers [i, i + 1).
    for k, i in enumerate(indices):
        assert i < (k + 1) * available / count
        assert i + 1 > k * available / count
    if count <= available:
        assert len(set(indices)) == count
    if count >= available and mode == "uniform":
        assert set(indices) == set(range(available))


@given(lengths, st.floats(0.1, 200), st.floats(0.1, 120), st.integers(1, 100), modes)
def test_frames_per_second(available: int, wanted: float, source: float, most: int, mode: Any) -> None:
    sampling = FrameSampling(fps=wanted, max_frames=most, mode=mode)
    indices = sampling.indices(at_rate(available, source), np.random.default_rng(0))
    assert 1 <= len(indices) <= min(most, available)
    assert all(0 <= i < available for i in indices)
    assert all(a < b for a, b in pairwise(indices))
    ideal = available / source * wanted
    if 1 <= ideal <= min(most, available):
        assert abs(len(indices) - ideal) <= 0.5 + 1e-6


@given(lengths, counts)
def test_uniform_sampling_is_the_same_backwards(available: int, count: int) -> None:
    indices = FrameSampling(num_frames=count).indices(at_rate(available, 25.0))
    mirrored = [available - 1 - i for i in reversed(indices)]
    assert all(abs(a - b) <= 1 for a, b in zip(indices, mirrored, strict=True))


def test_uniform_takes_the_centres() -> None:
    assert FrameSampling(num_frames=4).indices(at_rate(100, 25.0)) == [12, 37, 62, 87]
    assert FrameSampling(num_frames=1).indices(at_rate(9, 25.0)) == [4]
    assert FrameSampling(num_frames=4).indices(at_rate(2, 25.0)) == [0, 0, 1, 1]
    assert FrameSampling(fps=2).indices(at_rate(100, 25.0)) == [6, 18, 31, 43, 56, 68, 81, 93]


def test_random_reaches_every_frame_of_its_segment_and_follows_the_generator() -> None:
    sampling = FrameSampling(num_frames=3, mode="random")
    rng = np.random.default_rng(0)
    drawn = np.array([sampling.indices(at_rate(12, 25.0), rng) for _ in range(400)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    again = [sampling.indices(at_rate(12, 25.0), np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, "num_frames and fps, not neither"),
        ({"num_frames": 8, "fps": 2.0}, "exactly one"),
        ({"num_frames": 0}, "num_frames"),
        ({"fps": 0.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"num_frames": 8, "max_frames": 0}, "max_frames"),
        ({"num_frames": 8, "mode": "first"}, "mode"),
    ],
)
def test_settings_out_of_range(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        FrameSampling(**fields)


def test_calls_that_cannot_be_answered() -> None:
    with pytest.raises(ValueError, match="random generator"):
        FrameSampling(num_frames=8, mode="random").indices(at_rate(10, 25.0))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        FrameSampling(num_frames=8).indices(at_rate(0, 25.0))
    with pytest.raises(ValueError, match="frame rate"):
        FrameSampling(fps=2).indices(Timeline(10, 0.0))


@given(st.integers(1, 3000), st.integers(1, 200), st.sampled_from([1001 / 30000, 1 / 25, 1 / 24, 0.1]))
def test_at_one_rate_times_choose_what_numbers_choose(available: int, count: int, step: float) -> None:
    """As it was before times were looked at, and as times say: those of a steady video change no frame."""
    sampling = FrameSampling(num_frames=count)
    by_number = [(2 * i + 1) * available // (2 * count) for i in range(count)]
    assert sampling.indices(at_rate(available, 1 / step)) == by_number
    by_time = sampling.indices(Timeline(available, available * step, np.arange(available) * step))
    assert by_time == by_number


def test_random_frames_at_one_rate_are_those_of_earlier_versions() -> None:
    sampling = FrameSampling(num_frames=6, mode="random")
    assert sampling.indices(at_rate(50, 25.0), np.random.default_rng(3)) == [6, 8, 17, 26, 34, 48]


def test_what_is_shown_longer_is_taken_more_often() -> None:
    starts = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 6, 12])
    uneven = Timeline(12, 13.0, starts)
    assert FrameSampling(num_frames=4).indices(uneven) == [9, 9, 10, 10]
    assert FrameSampling(fps=1).indices(uneven) == [5, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 11]
    drawn = np.array(
        [FrameSampling(num_frames=2, mode="random").indices(uneven, np.random.default_rng(seed)) for seed in range(400)]
    )
    assert set(drawn[:, 0]) == {*range(11)} and set(drawn[:, 1]) == {10, 11}
    assert 0.7 < (drawn[:, 0] == 9).mean() < 0.87, "for 5.1 of 6.5 s, and chance"
