"""The pictures must show what the scenes say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rbft.worlds.scenes import SHAPES, Scenes, general_scenes
from rbft.worlds.shapes import render


def clean(scenes: Scenes) -> Scenes:
    return replace(
        scenes,
        noise=np.zeros_like(scenes.noise),
        background=np.zeros_like(scenes.background),
        softness=np.full_like(scenes.softness, 0.5),
    )


def single(n: int = 64) -> Scenes:
    return clean(general_scenes(np.random.default_rng(0), n, single=1.0))


@pytest.mark.parametrize("size", [64, 96, 160])
def test_an_object_is_where_it_is_said_to_be(size: int):
    scenes = single()
    frames = render(scenes, np.random.default_rng(0), size)
    assert frames.shape == (64, 8, size, size, 3)
    assert frames.dtype == np.uint8
    for clip in range(64):
        for time in range(8):
            lit = np.argwhere(frames[clip, time].max(-1) > 60)
            if not scenes.visible[clip, 0, time]:
                assert len(lit) == 0
                continue
            radius = scenes.radii[clip, 0, time] * size / 64
            centre = scenes.centres[clip, 0, time] * size / 64
            if np.abs(centre - size / 2).max() + radius > size / 2 or SHAPES[scenes.shapes[clip, 0]] == "triangle":
                continue  # cut off by the edge, or not symmetric
            middle = (lit.max(0) + lit.min(0) + 1) / 2
            assert np.abs(middle[::-1] - centre).max() < 1.1
            assert (lit.max(0) - lit.min(0) + 1).max() == pytest.approx(
                2 * radius * (0.85 if SHAPES[scenes.shapes[clip, 0]] == "square" else 1), abs=2.1
            )


def test_an_object_has_its_colour():
    scenes = single()
    frames = render(scenes, np.random.default_rng(0))
    rings = np.array([SHAPES[shape] == "ring" for shape in scenes.shapes[:, 0]])
    for clip in np.nonzero(~rings)[0]:
        time = np.nonzero(scenes.visible[clip, 0])[0][0]
        x, y = scenes.centres[clip, 0, time].astype(int)
        assert np.abs(frames[clip, time, y, x] - scenes.paint[clip, 0]).max() < 1.5


def test_shapes_differ():
    scenes = single(1)
    scenes = replace(scenes, radii=np.full_like(scenes.radii, 12), centres=np.full_like(scenes.centres, 32))
    pictures = [
        render(replace(scenes, shapes=np.full((1, 2), shape)), np.random.default_rng(0)) for shape in range(len(SHAPES))
    ]
    for a in range(len(SHAPES)):
        for b in range(a):
            assert ((pictures[a] > 60) != (pictures[b] > 60)).mean() > 0.01


def test_the_first_object_is_in_front():
    scenes = clean(general_scenes(np.random.default_rng(0), 8, single=0.0))
    scenes = replace(
        scenes,
        centres=np.full_like(scenes.centres, 32),
        visible=np.ones_like(scenes.visible),
        shapes=np.zeros_like(scenes.shapes),
    )
    frames = render(scenes, np.random.default_rng(0))
    assert np.abs(frames[:, :, 32, 32] - scenes.paint[:, None, 0]).max() < 1.5


def test_noise_is_as_strong_as_said_and_still_or_not():
    scenes = replace(
        general_scenes(np.random.default_rng(0), 2, empty=1.0),
        background=np.full((2, 8, 8, 3), 128, np.float32),
        noise=np.array([10, 10], np.float32),
        still_noise=np.array([True, False]),
    )
    frames = render(scenes, np.random.default_rng(0)).astype(float)
    assert frames.std() == pytest.approx(10, rel=0.05)
    assert (frames[0] == frames[0, :1]).all()
    assert (frames[1, 0] != frames[1, 1]).mean() > 0.9


def test_sizes_must_fit_the_background():
    with pytest.raises(ValueError, match="multiple of 8"):
        render(single(1), np.random.default_rng(0), 100)
