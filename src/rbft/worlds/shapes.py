"""Draws scenes as frames: coloured shapes with soft edges over a background, with noise; vectorised numpy."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from rbft.worlds.scenes import BACKGROUND_CELLS, FIELD, SHAPES, FloatArray, Scenes

Frames = npt.NDArray[np.uint8]

_NOISE_SAMPLES = 1 << 22
_CHUNK = 256  # objects drawn at once; keeps the arrays in cache


def render(scenes: Scenes, rng: np.random.Generator, size: int = 64) -> Frames:
    """Draws clips.

    Args:
        scenes: N clips at T times.
        rng: source of the noise.
        size: width and height in pixels, a multiple of 8.

    Returns:
        (N, T, size, size, 3) uint8 RGB. Some hundred clips at a time are drawn fastest: larger arrays are fresh
        memory on every call.
    """
    if size % BACKGROUND_CELLS:
        raise ValueError(f"size is {size}; it must be a multiple of {BACKGROUND_CELLS}")
    t = scenes.visible.shape[2]
    cell = size // BACKGROUND_CELLS
    background = np.round(scenes.background).astype(np.uint8).repeat(cell, 1).repeat(cell, 2)
    frames = background[:, None].repeat(t, 1)
    for slot in (1, 0):  # object 0 in front
        _draw_slot(frames, scenes, slot)
    _add_noise(frames, scenes, rng)
    return frames


def _draw_slot(frames: Frames, scenes: Scenes, slot: int) -> None:
    """Blends one object per clip and frame into the frames (N, T, size, size, 3), in place."""
    t, size = frames.shape[1:3]
    flat = frames.reshape(-1, 3)
    scale = size / FIELD
    clip_ids, time_ids = np.nonzero(scenes.visible[:, slot])
    radii = scenes.radii[clip_ids, slot, time_ids] * scale
    order = np.lexsort((radii, scenes.shapes[clip_ids, slot]))  # like shapes and sizes share a window
    for shape in range(len(SHAPES)):
        rows = order[scenes.shapes[clip_ids[order], slot] == shape]
        for start in range(0, len(rows), _CHUNK):
            pick = rows[start : start + _CHUNK]
            clip, time = clip_ids[pick], time_ids[pick]
            reach = math.ceil(radii[pick].max() + scale) + 1
            grid = np.arange(-reach, reach + 1)
            centre = scenes.centres[clip, slot, time] * scale
            corner = np.floor(centre).astype(np.int64)
            pixel = corner[:, None] + grid[None, :, None]  # (objects, window, 2): x and y of the window's pixels
            offset = (pixel + 0.5 - centre[:, None]).astype(np.float32)
            shown = (pixel >= 0) & (pixel < size)
            inside = _depth(shape, offset[:, None, :, 0], offset[:, :, None, 1], radii[pick, None, None])
            edge = np.maximum(scenes.softness[clip] * scale, 1.0)[:, None, None]
            cover = np.clip(inside / edge + 0.5, 0, 1)
            cover *= shown[:, None, :, 0] & shown[:, :, None, 1]
            hit = np.flatnonzero(cover)
            item, place = np.divmod(hit, len(grid) ** 2)
            y, x = np.divmod(place, len(grid))
            index = ((clip[item] * t + time[item]) * size + pixel[item, y, 1]) * size + pixel[item, x, 0]
            alpha = cover.reshape(-1)[hit][:, None]
            flat[index] = np.round(flat[index] * (1 - alpha) + scenes.paint[clip[item], slot] * alpha).astype(np.uint8)


def _depth(shape: int, x: FloatArray, y: FloatArray, r: FloatArray) -> FloatArray:
    """How far a point lies inside the shape's outline, in pixels; negative outside."""
    name = SHAPES[shape]
    if name == "circle":
        return r - np.sqrt(x * x + y * y)
    if name == "ring":
        distance = np.sqrt(x * x + y * y)
        return np.minimum(r - distance, distance - 0.55 * r)
    ax, ay = np.abs(x), np.abs(y)
    if name == "square":
        return 0.85 * r - np.maximum(ax, ay)
    if name == "triangle":
        slope = 0.58
        sides = (slope * (y + r) - ax) / math.hypot(1.0, slope)
        return np.minimum(sides, 0.8 * r - y)
    bar, arm = 0.33 * r, r
    return np.maximum(np.minimum(bar - ax, arm - ay), np.minimum(bar - ay, arm - ax))


@functools.cache
def _noise_bank() -> FloatArray:
    """Standard normal samples, drawn once: fresh normals for every pixel would cost more than the drawing."""
    return np.random.default_rng(7).standard_normal(_NOISE_SAMPLES, dtype=np.float32)


def _add_noise(frames: Frames, scenes: Scenes, rng: np.random.Generator) -> None:
    bank = _noise_bank()
    per_frame, all_frames = frames[0, 0].size, frames[0].size
    if all_frames >= len(bank):
        raise ValueError(f"a clip of {all_frames} values is too large to draw; at most {len(bank) - 1}")
    starts = rng.integers(0, len(bank) - all_frames, len(frames))
    for clip in np.nonzero(scenes.noise > 0)[0]:
        length = per_frame if scenes.still_noise[clip] else all_frames
        noise = bank[starts[clip] : starts[clip] + length].reshape(-1, *frames.shape[2:])
        frames[clip] = np.clip(frames[clip] + scenes.noise[clip] * noise, 0, 255).astype(np.uint8)
