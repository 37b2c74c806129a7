"""What happens in a clip: who is there, what each object does when, and how it looks; drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from rbft.worlds.events import (
    ACTIONS,
    GENERAL,
    RULES,
    SEEN,
    TARGETS,
    UNNAMED,
    Domain,
    IntArray,
    action_ids,
)

Style = Literal["plain", "textured"]
FloatArray = npt.NDArray[np.float32]

NUM_STEPS = 8  # the model's frames; all times below are in these steps
FIELD = 64.0  # width and height of the picture in its own length unit, whatever its pixels
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 220, 40),
    "purple": (165, 60, 200),
    "cyan": (40, 215, 225),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring")
MIN_RADIUS, MAX_RADIUS = 4.5, 16.5
BACKGROUND_CELLS = 8

_WAIT, _GROW, _SHRINK, _BLINK = (ACTIONS.index(a) for a in ("wait", "grow", "shrink", "blink"))
_DIRECTION = np.zeros((len(ACTIONS), 2), np.float32)
for _name, _step in {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.items():
    _DIRECTION[ACTIONS.index(_name)] = _step
_SCALING = np.zeros(len(ACTIONS), np.float32)
_SCALING[_GROW], _SCALING[_SHRINK] = 1, -1
_PLACEMENTS = 16  # positions tried for a pair of objects; the one that keeps them furthest apart is taken


@dataclass(frozen=True)
class Scenes:
    """Ground truth and looks of N clips with two object slots at T times; slot k exists if k < num_objects.

    Attributes:
        num_objects: (N,) 0, 1 or 2.
        actions: (N, 2, 2) per slot the first and the second action, as indices into `ACTIONS`.
        colours: (N, 2) indices into `COLOURS`; the two of a clip differ.
        shapes: (N, 2) indices into `SHAPES`.
        switch: (N,) step at which the second action begins.
        acting: (N, 2, T) action at each time.
        centres: (N, 2, T, 2) x and y in field units.
        radii: (N, 2, T) in field units.
        visible: (N, 2, T) whether the slot exists and is not blinked away.
        paint: (N, 2, 3) RGB of the objects.
        background: (N, 8, 8, 3) RGB of the background's cells.
        noise: (N,) standard deviation of the pixel noise, in grey levels.
        still_noise: (N,) whether all frames share one noise picture.
        softness: (N,) width of the edges, in field units.
        event: (N,) which event object 0 was drawn from: an index chosen by the sampler, or -1 for none.
    """

    num_objects: IntArray
    actions: IntArray
    colours: IntArray
    shapes: IntArray
    switch: IntArray
    acting: IntArray
    centres: FloatArray
    radii: FloatArray
    visible: npt.NDArray[np.bool_]
    paint: FloatArray
    background: FloatArray
    noise: FloatArray
    still_noise: npt.NDArray[np.bool_]
    softness: FloatArray
    event: IntArray

    def __len__(self) -> int:
        return len(self.num_objects)

    def take(self, rows: IntArray | slice) -> Scenes:
        """The scenes of these rows."""
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def sample_times(rng: np.random.Generator, num_clips: int) -> FloatArray:
    """Times (N, 8) of eight frames taken uniformly from clips of 16 to 32 frames: near, not at, the whole steps."""
    source = rng.integers(16, 33, (num_clips, 1))
    frame = np.floor((np.arange(NUM_STEPS) + 0.5) * source / NUM_STEPS)
    return frame_times(frame, source)


def frame_times(frame: npt.NDArray[np.floating | np.integer], num_frames: npt.ArrayLike) -> FloatArray:
    """Time in steps of a frame of a clip of `num_frames` frames; the centre of step k is time k."""
    return np.asarray((frame + 0.5) * NUM_STEPS / np.asarray(num_frames) - 0.5, dtype=np.float32)


def sample_scenes(
    rng: np.random.Generator,
    actions: IntArray,
    num_objects: IntArray,
    *,
    style: Style = "plain",
    times: FloatArray | None = None,
    event: IntArray | None = None,
) -> Scenes:
    """Draws everything but the actions.

    Args:
        rng: Source of randomness.
        actions: (N, 2, 2), see `Scenes`.
        num_objects: (N,), see `Scenes`.
        style: "plain" is dark or light backgrounds, flat, blocky or graded; "textured" is blocky mid-grey only.
        times: (N, T) times of the frames in steps; default `sample_times`.
        event: (N,) kept as `Scenes.event`.
    """
    n = len(num_objects)
    times = sample_times(rng, n) if times is None else times
    switch = rng.integers(3, 6, n)
    step = np.clip(np.round(times), 0, NUM_STEPS - 1).astype(np.int64)
    second = step >= switch[:, None]
    acting = np.where(second[:, None], actions[:, :, 1:], actions[:, :, :1])
    # Blinking is decided by whole steps, so that every frame of a step agrees: gone, there, gone, ...
    since = np.where(second, step - switch[:, None], step)
    hidden = (acting == _BLINK) & (since % 2 == 0)[:, None]
    exists = np.arange(2)[None] < num_objects[:, None]
    # How long each action has been going on, in steps; an action has begun a step before its first frame.
    first_for = np.clip(times + 1, 0, switch[:, None])[:, None]
    second_for = np.maximum(times + 1 - switch[:, None], 0)[:, None]
    radii = _radii(rng, actions, first_for, second_for)
    centres = _centres(rng, actions, first_for, second_for, radii)
    colours = rng.permuted(np.tile(np.arange(len(COLOURS)), (n, 1)), axis=1)[:, :2]
    palette = np.array(list(COLOURS.values()), np.float32)
    paint = np.clip(palette[colours] + rng.normal(0, 12, (n, 2, 3)), 0, 255).astype(np.float32)
    empty = num_objects == 0
    return Scenes(
        num_objects=num_objects,
        actions=actions,
        colours=colours,
        shapes=rng.integers(0, len(SHAPES), (n, 2)),
        switch=switch,
        acting=acting,
        centres=centres,
        radii=radii,
        visible=exists[:, :, None] & ~hidden,
        paint=paint,
        background=_background(rng, n, style, empty),
        noise=_noise(rng, n, empty),
        still_noise=rng.random(n) < 0.5,
        softness=rng.uniform(0.5, 2.0, n).astype(np.float32),
        event=np.full(n, -1) if event is None else event,
    )


def _radii(rng: np.random.Generator, actions: IntArray, first_for: FloatArray, second_for: FloatArray) -> FloatArray:
    """(N, 2, T). Any object may be as large as a grown one or as small as a shrunk one."""
    rate = rng.uniform(0.11, 0.155, (*actions.shape[:2], 1)).astype(np.float32)  # log radius per step
    log = rate * (_SCALING[actions[:, :, :1]] * first_for + _SCALING[actions[:, :, 1:]] * second_for)
    low = np.log(MIN_RADIUS) - np.minimum(log.min(-1), 0)
    high = np.log(MAX_RADIUS) - np.maximum(log.max(-1), 0)
    start = low + rng.random(low.shape) * (high - low)
    return np.exp(start[:, :, None] + log).astype(np.float32)


def _centres(
    rng: np.random.Generator, actions: IntArray, first_for: FloatArray, second_for: FloatArray, radii: FloatArray
) -> FloatArray:
    """(N, 2, T, 2), inside the field and with the two objects as far apart as the best of some tries."""
    n = len(actions)
    speed = rng.uniform(3.2, 5.2, (n, 2, 1, 1)).astype(np.float32)  # field units per step
    path = speed * (
        _DIRECTION[actions[:, :, 0]][:, :, None] * first_for[..., None]
        + _DIRECTION[actions[:, :, 1]][:, :, None] * second_for[..., None]
    )
    margin = 9.0
    low = margin - path.min(2)
    high = np.maximum(FIELD - margin - path.max(2), low)
    start = low[:, None] + rng.random((n, _PLACEMENTS, 2, 2)) * (high - low)[:, None]
    tries = start[:, :, :, None] + path[:, None]  # (N, tries, 2, T, 2)
    gap = np.sqrt(((tries[:, :, 0] - tries[:, :, 1]) ** 2).sum(-1)) - radii.sum(1)[:, None]
    return tries[np.arange(n), gap.min(-1).argmax(1)].astype(np.float32)


def _background(rng: np.random.Generator, n: int, style: Style, empty: npt.NDArray[np.bool_]) -> FloatArray:
    """(N, 8, 8, 3)."""
    cells = BACKGROUND_CELLS
    if style == "plain":
        grey = np.where(rng.random((n, 1)) < 0.5, rng.uniform(0, 70, (n, 1)), rng.uniform(150, 255, (n, 1)))
        kind, blockiness = rng.integers(0, 3, n), 14.0
    else:
        grey = rng.uniform(60, 170, (n, 1))
        kind, blockiness = np.ones(n, dtype=np.int64), 18.0
    tint = grey + rng.uniform(-15, 15, (n, 3))
    # Where nothing happens the whole picture may have any colour, so that colour alone does not make an object.
    any_colour = empty & (rng.random(n) < 0.5)
    tint = np.where(any_colour[:, None], rng.uniform(0, 255, (n, 3)), tint)
    blocks = rng.normal(0, blockiness, (n, cells, cells, 1))
    ramp = rng.uniform(-30, 30, (n, 1, 1, 1)) * np.linspace(-1, 1, cells)[None, :, None, None]
    kind = kind[:, None, None, None]
    relief = np.where(kind == 1, blocks, np.where(kind == 2, ramp, 0.0))
    relief = np.where((empty & (rng.random(n) < 0.3))[:, None, None, None], 0.0, relief)
    return np.clip(tint[:, None, None] + relief, 0, 255).astype(np.float32)


def _noise(rng: np.random.Generator, n: int, empty: npt.NDArray[np.bool_]) -> FloatArray:
    """(N,). Light where something can be seen, up to all-over static where nothing can."""
    light = np.where(rng.random(n) < 0.6, rng.uniform(1, 6, n), 0.0)
    strong = empty & (rng.random(n) < 0.4)
    return np.where(strong, rng.uniform(6, 90, n), light).astype(np.float32)


def general_scenes(
    rng: np.random.Generator, n: int, *, single: float = 0.5, empty: float = 0.0, named: float = 0.5
) -> Scenes:
    """Clips as in pre-training: any seen event, and never one of the `PAIRS`.

    Args:
        rng: Source of randomness.
        n: Number of clips.
        single: Share of clips with one object among those that have any.
        empty: Share of clips with no object.
        named: Share of clips whose object 0 has an event of `GENERAL`; object 1, if there, then has an unnamed one.
            `Scenes.event` is the index of the name, -1 in the other clips.
    """
    num_objects = np.where(rng.random(n) < empty, 0, np.where(rng.random(n) < single, 1, 2))
    seen, unnamed = action_ids(SEEN), action_ids(UNNAMED)
    actions = seen[rng.integers(0, len(seen), (n, 2))]
    throughout = rng.random((n, 2, 1)) < 0.15
    actions = np.where(throughout, rng.integers(0, len(ACTIONS), (n, 2, 1)), actions)
    event = np.where(rng.random(n) < named, rng.integers(0, len(GENERAL), n), -1)
    has_name = event >= 0
    actions[has_name, 0] = action_ids(tuple(GENERAL.values()))[event[has_name]]
    actions[has_name, 1] = unnamed[rng.integers(0, len(unnamed), has_name.sum())]
    event[num_objects == 0] = -1
    return sample_scenes(rng, actions, num_objects, event=event)


def target_scenes(
    rng: np.random.Generator,
    labels: IntArray,
    domain: Domain,
    *,
    style: Style = "plain",
    events: IntArray | None = None,
    times: FloatArray | None = None,
) -> Scenes:
    """Clips of a target domain.

    In `TARGETS` object 0 has the label's event, object 1 (in half of the clips) an unnamed one; in `RULES` there are
    always two objects, whose events follow the label's rule.

    Args:
        rng: Source of randomness.
        labels: (N,) indices into `CLASSES[domain]`.
        domain: domain that names the classes.
        style: See `sample_scenes`.
        events: (N,) which of a label's events; default any. Kept as `Scenes.event`.
        times: See `sample_scenes`.
    """
    n = len(labels)
    if domain in RULES:
        pools = [np.stack([action_ids(scene) for scene in scenes]) for scenes in RULES[domain].values()]
        events = rng.integers(0, np.array([len(pool) for pool in pools])[labels]) if events is None else events
        actions = np.stack([pools[label][event] for label, event in zip(labels, events, strict=True)])
        return sample_scenes(rng, actions, np.full(n, 2), style=style, times=times, event=events)
    meanings = np.stack([action_ids(pairs) for pairs in TARGETS[domain].values()])  # (labels, events, 2)
    events = rng.integers(0, meanings.shape[1], n) if events is None else events
    unnamed = action_ids(UNNAMED)
    actions = np.stack([meanings[labels, events], unnamed[rng.integers(0, len(unnamed), n)]], axis=1)
    num_objects = np.where(rng.random(n) < 0.5, 1, 2)
    return sample_scenes(rng, actions, num_objects, style=style, times=times, event=events)
