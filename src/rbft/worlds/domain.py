"""Writes a target domain as real video files with their truth beside them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from filelock import FileLock

from rbft.errors import ConfigError, DataError
from rbft.files import read_json, write_json, write_jsonl
from rbft.worlds.encode import write_mp4
from rbft.worlds.events import CLASSES, TARGETS, Domain
from rbft.worlds.language import actions_of, description
from rbft.worlds.scenes import COLOURS, SHAPES, Scenes, Style, frame_times, target_scenes
from rbft.worlds.shapes import render

EVENTS_SHOWN = 4  # a union has so many
#: Raise it with any change that gives other clips or other texts for the same settings.
GENERATOR_VERSION = 1
SPLITS = ("train", "val", "test")
SETTINGS_FILE, TRUTH_FILE = "world.json", "truth.jsonl"

_FRAMES = (16, 32)
_SIZES = (96, 112, 128, 144, 160)
_FRAME_RATES = (8, 10, 12, 15, 24, 25, 30)
_CRF = (18, 28)


@dataclass(frozen=True)
class _Settings:
    domain: Domain
    style: Style
    seed: int
    train_per_class: int
    val_per_class: int
    test_per_class: int
    events_shown: int

    def __post_init__(self) -> None:
        for name, value, choices in (("domain", self.domain, Domain), ("style", self.style, Style)):
            if value not in get_args(choices):
                raise ConfigError(f"{name} is {value!r}; use one of {', '.join(get_args(choices))}.")
        for name in ("seed", *(f"{split}_per_class" for split in SPLITS)):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.events_shown < 1:
            raise ConfigError(
                f"events_shown is {self.events_shown}; labelled clips show at least one event of a class."
            )


def write_domain(
    root: Path,
    *,
    domain: Domain,
    style: Style,
    seed: int,
    train_per_class: int,
    val_per_class: int,
    test_per_class: int,
    events_shown: int = EVENTS_SHOWN,
) -> None:
    """Writes `root/{train,val,test}/<class>/<class>_<nnnn>.mp4`, `root/truth.jsonl` and `root/world.json`.

    The same settings give the same bytes. Each clip shows one event of its class, in half of the clips beside a second
    object that does something without a name; a class of several events shows them in turn. Frame rate, number of
    frames, frame size and compression differ from clip to clip.

    A row of `truth.jsonl` has: path, label, split, event (which of the class's events), objects (colour, shape, first
    and second action; the first object is the labelled one), description.

    Args:
        root: folder to make. If it holds the same domain already, nothing is done.
        domain: "pairs": eight events that the built-in model was never shown. "unions": four names that each stand for
            four events. The built-in model knows the names of both in words only. "wide_unions": four names, unknown to
            it, that each stand for six events. "relations", "majority": rules about two objects, of which it knows
            neither the rules nor the words; see `rbft.worlds.events.RULES`.
        style: "plain": backgrounds as in pre-training. "textured": others.
        seed: seed of every clip; clips of another seed are other clips.
        train_per_class: clips of each class in `train`.
        val_per_class: clips of each class in `val`; without any there is no such folder.
        test_per_class: clips of each class in `test`.
        events_shown: number of a class's events that the clips of `train` and `val` show; `test` shows all. A class of
            `unions` has four, one of `wide_unions` six.

    Raises:
        ConfigError: An unknown domain or style, or a negative number.
        DataError: `root` holds something else, or is damaged; nothing is changed.
    """
    settings = _Settings(domain, style, seed, train_per_class, val_per_class, test_per_class, events_shown)
    root = root.absolute()
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f".{root.name}.lock")):
        if _is_written(root, settings):
            return
        partial = root.with_name(f".{root.name}.partial")
        if partial.exists():  # left by a run that was killed; the lock says that no other is at work
            shutil.rmtree(partial)
        partial.mkdir()
        rows = list(_write_clips(partial, settings))
        write_jsonl(partial / TRUTH_FILE, rows)
        write_json(partial / SETTINGS_FILE, _identity(settings) | {"blake2b": _digest(partial)})
        partial.rename(root)


def _identity(settings: _Settings) -> dict[str, Any]:
    wanted = asdict(settings)
    # a domain that was written before there was a choice is the one that shows all
    if settings.domain != "wide_unions" and settings.events_shown >= EVENTS_SHOWN:
        del wanted["events_shown"]
    return {"generator": GENERATOR_VERSION, "settings": wanted}


def _is_written(root: Path, settings: _Settings) -> bool:
    """Whether `root` holds this domain already; False if it is new or empty.

    Raises:
        DataError: It holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    advice = "Name a new folder, or remove this one first."
    if not (root / SETTINGS_FILE).is_file():
        raise DataError(f"{root} exists and is not a generated domain (it has no {SETTINGS_FILE}). {advice}")
    written = read_json(root / SETTINGS_FILE)
    wanted = _identity(settings)
    for key in wanted:
        if not isinstance(written, dict) or written.get(key) != wanted[key]:
            have = written.get(key) if isinstance(written, dict) else written
            raise DataError(f"{root} holds another domain: {key} {have}, wanted {wanted[key]}. {advice}")
    if _digest(root) != written.get("blake2b"):
        raise DataError(f"{root} was changed since it was written: its files no longer match {SETTINGS_FILE}. {advice}")
    return True


def _digest(root: Path) -> str:
    """Over names and contents of the truth and all videos."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([root / TRUTH_FILE, *root.glob("*/*/*.mp4")]):
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_clips(root: Path, settings: _Settings) -> Iterator[dict[str, Any]]:
    for split_id, split in enumerate(SPLITS):
        for label, name in enumerate(CLASSES[settings.domain]):
            folder, clips = root / split / name, getattr(settings, f"{split}_per_class")
            if clips:
                folder.mkdir(parents=True)
            for number in range(clips):
                # Each clip has a generator of its own: more clips of one split leave all others as they are.
                kind = (get_args(Domain).index(settings.domain), get_args(Style).index(settings.style))
                rng = np.random.default_rng([settings.seed, *kind, split_id, label, number])
                event = _event(settings, split, name, number)
                path = folder / f"{name}_{number:04d}.mp4"
                scenes = _write_clip(path, rng, settings, label, event)
                yield {
                    "path": path.relative_to(root).as_posix(),
                    "label": name,
                    "split": split,
                    "event": int(scenes.event[0]),
                    "objects": [_object(scenes, slot) for slot in range(scenes.num_objects[0])],
                    "description": description(scenes, 0),
                }


def _event(settings: _Settings, split: str, name: str, number: int) -> int | None:
    """Which of its class's events a clip shows; None where any scene that follows a rule will do."""
    if settings.domain not in TARGETS:
        return None
    events = len(TARGETS[settings.domain][name])
    return number % (events if split == "test" else min(events, settings.events_shown))


def _write_clip(path: Path, rng: np.random.Generator, settings: _Settings, label: int, event: int | None) -> Scenes:
    count = int(rng.integers(_FRAMES[0], _FRAMES[1] + 1))
    size, fps = int(rng.choice(_SIZES)), int(rng.choice(_FRAME_RATES))
    crf = int(rng.integers(_CRF[0], _CRF[1] + 1))
    scenes = target_scenes(
        rng,
        np.array([label]),
        settings.domain,
        style=settings.style,
        events=None if event is None else np.array([event]),
        times=frame_times(np.arange(count), count)[None],
    )
    write_mp4(path, render(scenes, rng, size)[0], fps, crf)
    return scenes


def _object(scenes: Scenes, slot: int) -> dict[str, str]:
    first, second = actions_of(scenes, 0, slot)
    return {
        "colour": tuple(COLOURS)[scenes.colours[0, slot]],
        "shape": SHAPES[scenes.shapes[0, slot]],
        "first": first,
        "second": second,
    }
