"""A sweep file: one experiment, a grid over its keys, and the runs that come of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft import __version__
from rbft.errors import ConfigError, DataError
from rbft.experiment import nearest, read_experiment, require_known_keys
from rbft.files import expanded, read_yaml
from rbft.runs.run_folder import REPLICATES
from rbft.runs.stage_record import SCHEMA
from rbft.sweep.options import LaunchOptions, read_options

_KEYS = ("experiment", "grid", "together", "exclude", "flags", "baseline", "replicates", "choose", "launch")
# named by the sweep itself, or choosing stages rather than settings
_NOT_SWEPT = ("experiment", "variant", "run_root", "config", "stage", "restart", "dry_run", "stages", "methods")
# what a flag alone may say: a file must not be able to allow what it names
_FLAGS_ALONE = ("allow-class", "allow_class")
_LONGEST_NAME = 180

Point = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One `rbft fit` of a sweep.

    Args:
        id: `<variant>-seed<k>`; the same settings always have the same one.
        point: swept keys with this run's values.
        args: command line after `rbft fit`.
        folder: run folder.
        settings: fingerprint of the experiment file's content and of all flags.
    """

    id: str
    point: Point
    args: tuple[str, ...]
    folder: Path
    settings: str


@dataclass(frozen=True)
class Sweep:
    """What one `rbft sweep` has to do.

    Args:
        name: name of the sweep file.
        folder: `<run_root>/sweeps/<name>`: records, logs and the summary.
        runs: all runs, in the order of the grid.
        baseline: keys and values of the runs that others are compared with; None for no comparison.
        replicates: swept keys that repeat a run rather than change the method.
        choose: swept keys whose values do not make methods of their own: validation videos choose one value.
        launch: where runs are started, and how many at once.
        processes: most processes that one run starts by itself.
    """

    name: str
    folder: Path
    runs: tuple[Run, ...]
    baseline: Point | None
    replicates: tuple[str, ...]
    choose: tuple[str, ...]
    launch: LaunchOptions
    processes: int


def read_sweep(path: str, flags: Sequence[str], launch: Mapping[str, Any]) -> Sweep:
    """Read a sweep file and expand its grid.

    Args:
        path: the sweep file.
        flags: further flags for every run, as on the command line of `rbft fit`.
        launch: settings of the `launch:` section that the command line overrides.

    Raises:
        ConfigError: A key is unknown or of the wrong kind, a point stands twice, or a run cannot be read.
    """
    path = str(expanded(path))
    content = _mapping(path, "", read_content(path))
    if "stages" in content and "grid" not in content:
        raise ConfigError(f"{path} is an experiment file; did you mean `rbft fit {path}`?")
    if unknown := sorted(str(key) for key in content if key not in _KEYS):
        raise ConfigError(f"{path}: unknown key {unknown[0]}; {nearest(unknown[0], _KEYS)}")
    if not isinstance(content.get("experiment"), str):
        raise ConfigError(f"{path}: experiment: name the experiment file, relative to the folder of the sweep file.")
    experiment = os.path.normpath(Path(path).parent / expanded(content["experiment"]))
    common = _mapping(path, "flags", content.get("flags"))
    _check_keys(path, "flags", common.keys() - {"run_root"})
    every = [*(_flag(key, value) for key, value in common.items()), *flags]
    points = _points(path, content)
    given = {part.removeprefix("--").split("=", 1)[0] for part in every if part.startswith("--")}
    _check_keys(path, "flags", given - {"run_root", *_FLAGS_ALONE})
    require_known_keys([*sorted(given), *(key for point in points for key in point)])
    if both := sorted(given & {key for point in points for key in point}):
        raise ConfigError(f"{path}: {both[0]} is swept and given as a flag too; leave it out of one of the two.")
    names = short_names({key for point in points for key in point})
    base = ["--config", experiment, *every]
    # named by the grid or by the experiment; not every experiment has the stages of the default method
    method = None if "method" in points[0] else read_experiment(base).method
    settings = read_content(experiment)
    runs = [run_at(base, method, settings, point, names) for point in points]
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise ConfigError(
                f"{path}: two points of the grid are the same run {run.id}: {seen[run.id].point} and "
                f"{run.point}. Leave one out."
            )
        seen[run.id] = run
    replicates = _replicates(path, content.get("replicates"), points)
    baseline = _baseline(path, content.get("baseline"), points, replicates)
    name, root = Path(path).stem, runs[0].folder.parents[2]
    return Sweep(
        name=name,
        folder=root / "sweeps" / name,
        runs=tuple(runs),
        baseline=baseline,
        replicates=replicates,
        choose=_choose(path, content.get("choose"), points, (*replicates, *(baseline or {}))),
        launch=read_options(path, _mapping(path, "launch", content.get("launch")), launch),
        processes=max(processes_of(settings, run.args) for run in runs),
    )


def matches(point: Point, wanted: Mapping[str, Any]) -> bool:
    """Whether a point has each wanted value, or one of each wanted list of values."""
    return all(
        key in point and (point[key] in value if isinstance(value, list) else point[key] == value)
        for key, value in wanted.items()
    )


def read_content(path: str) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return read_yaml(expanded(path))
    except DataError as error:
        raise ConfigError(str(error)) from error


def _mapping(path: str, key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key or 'the file'} must hold keys and values, found {type(value).__name__}.")
    return {str(name): content for name, content in value.items()}


def _check_keys(path: str, section: str, keys: Iterable[str]) -> None:
    for key in keys:
        if key.split("=")[0] in _FLAGS_ALONE:
            raise ConfigError(
                f"{path}: {section}.{key}: a file cannot allow what it names. If you know and trust that code, say so "
                f"on the command line: `rbft sweep --config {path} --allow-class NAME`."
            )
        if key.split(".")[0] in _NOT_SWEPT:
            raise ConfigError(
                f"{path}: {section}.{key} cannot be set here. Stages and methods are the experiment "
                "file's: give it the methods and sweep over `method`; folders are named by the sweep, "
                "below the experiment's run_root."
            )


def _points(path: str, content: Mapping[str, Any]) -> list[Point]:
    """All combinations of `grid`, with each mapping of `together`, without those of `exclude`."""
    grid = _mapping(path, "grid", content.get("grid"))
    _check_keys(path, "grid", grid)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: grid.{key} must be a list of values, found {values!r}.")
    coupled = content.get("together") or [{}]
    if not isinstance(coupled, list):
        raise ConfigError(f"{path}: together must be a list of mappings, found {type(coupled).__name__}.")
    coupled = [_mapping(path, "together", entry) for entry in coupled]
    for entry in coupled:
        _check_keys(path, "together", entry)
        if entry.keys() != coupled[0].keys() or entry.keys() & grid.keys():
            raise ConfigError(
                f"{path}: together: each mapping must have the same keys, none of them in grid; "
                f"found {sorted(entry)} beside {sorted(coupled[0])}."
            )
    excluded = content.get("exclude") or []
    if not isinstance(excluded, list):
        raise ConfigError(f"{path}: exclude must be a list of mappings, found {type(excluded).__name__}.")
    excluded = [_mapping(path, "exclude", entry) for entry in excluded]
    points = list(_product(grid, coupled))
    for entry in excluded:
        if not entry or not any(matches(point, entry) for point in points):
            raise ConfigError(f"{path}: exclude: no run has {entry}; name swept keys with their values.")
    points = [point for point in points if not any(matches(point, entry) for entry in excluded)]
    if not points or points == [{}]:
        raise ConfigError(f"{path}: there is nothing to run; list values of at least one key under grid.")
    return points


def _replicates(path: str, keys: Any, points: Sequence[Point]) -> tuple[str, ...]:
    """Keys that repeat a run; those of a seed and a draw may be named though they are not swept."""
    if not keys:
        return REPLICATES
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"{path}: replicates must be a list of swept keys, found {keys!r}.")
    known = sorted({*REPLICATES, *(key for point in points for key in point)} - {"method"})
    if unknown := [key for key in keys if key not in known]:
        raise ConfigError(
            f"{path}: replicates: {unknown[0]} is not swept, or is the method; {nearest(unknown[0], known)}"
        )
    return tuple(keys)


def _baseline(path: str, stated: Any, points: Sequence[Point], replicates: Sequence[str]) -> Point | None:
    """What runs are compared with: one value of each key, none of which repeats a run."""
    if stated is None:
        return None
    baseline = _mapping(path, "baseline", stated)
    if not any(all(key in point and point[key] == value for key, value in baseline.items()) for point in points):
        raise ConfigError(f"{path}: baseline: no run has {baseline}; name swept keys with one of their values.")
    if repeating := [key for key in baseline if key in replicates]:
        raise ConfigError(
            f"{path}: baseline: {repeating[0]} repeats a run, so nothing is compared with one of its values; leave it "
            f"out, or name the keys that repeat a run, without it, under replicates (they are {', '.join(replicates)})."
        )
    return baseline


def _choose(path: str, keys: Any, points: Sequence[Point], others: Sequence[str]) -> tuple[str, ...]:
    """Swept keys whose values validation videos choose from; `others` say what is compared or repeated."""
    if keys is None:
        return ()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"{path}: choose must be a list of swept keys, found {keys!r}.")
    swept = sorted({key for point in points for key in point} - {"method", *others})
    if unknown := [key for key in keys if key not in swept]:
        raise ConfigError(
            f"{path}: choose: {unknown[0]} is not swept, or is a method, a replicate or of the baseline; "
            f"{nearest(unknown[0], swept)}"
        )
    return tuple(keys)


def _product(grid: Mapping[str, list[Any]], coupled: Sequence[Point]) -> Iterator[Point]:
    for entry in coupled:
        for values in itertools.product(*grid.values()):
            yield {**entry, **dict(zip(grid, values, strict=True))}


def _flag(key: str, value: Any) -> str:
    # one word, so that a value such as -1 is not taken for a flag
    return f"--{key}={value if isinstance(value, str) else json.dumps(value)}"


def short_names(keys: set[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that are still unique, as parts of a folder name."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        names[key] = next(
            end for end in ends if end == key or not any(o != key and f".{o}".endswith(f".{end}") for o in keys)
        ).replace(".", "_")
    return names


def _value_name(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"[\w+.-]{1,40}", value):
        return f"_{value}"
    if value is None or isinstance(value, bool):
        return f"_{json.dumps(value)}"
    text = json.dumps(value, sort_keys=True)
    word = str(value.get("class_path", "")).rsplit(".", 1)[-1] if isinstance(value, dict) else ""
    return f"_{re.sub(r'[^A-Za-z0-9]+', '', word or text)[:24]}_{_digest(text)[:6]}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def run_at(base: Sequence[str], method: str | None, settings: Any, point: Point, names: Mapping[str, str]) -> Run:
    """The run at one point, given what all runs share."""
    parts = [
        f"{names[key]}{_value_name(value)}" for key, value in point.items() if key not in ("method", "seed_everything")
    ]
    variant = "-".join([str(point.get("method", method)), *parts])
    if len(variant) > _LONGEST_NAME:
        raise ConfigError(f"the folder name {variant!r} would be too long; sweep over fewer keys at once.")
    args = (
        *base,
        *(_flag(key, value) for key, value in point.items()),
        f"--variant={variant}",
    )
    folder = read_experiment(args).run_dir
    content = {"schema": SCHEMA, "version": __version__, "file": settings, "args": sorted(args)}
    return Run(
        id=f"{variant}-{folder.name}",
        point=point,
        args=args,
        folder=folder,
        settings=_digest(json.dumps(content, sort_keys=True, default=str)),
    )


def processes_of(content: Mapping[str, Any], args: Sequence[str]) -> int:
    """Most processes that the trainer's settings give one run; `auto` and `-1` are as many as it sees devices."""
    layers = [content, *(stage for stage in (content.get("stages") or {}).values() if isinstance(stage, dict))]
    trainers = [layer["trainer"] for layer in layers if isinstance(layer.get("trainer"), dict)]
    devices = [trainer["devices"] for trainer in trainers if "devices" in trainer]
    for place, part in enumerate(args):
        if part == "--trainer.devices" and place + 1 < len(args):
            devices = [args[place + 1]]
        elif part.startswith("--trainer.devices="):
            devices = [part.split("=", 1)[1]]
    counts = [
        len(value) if isinstance(value, list) else int(value) if str(value).isdecimal() else 1 for value in devices
    ]
    return max(counts, default=1)
