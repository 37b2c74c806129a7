"""The runs that a report is about: found in folders, with the settings in which they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rbft.errors import ConfigError, DataError
from rbft.evaluation.comparison import Member, Point, key_of, shared
from rbft.evaluation.model_selection import choose_runs, without
from rbft.experiment import nearest
from rbft.files import expanded, read_json
from rbft.runs.names import EXPERIMENT, RATIONALES
from rbft.runs.run_folder import REPLICATES, RunFolder, find_runs

# decide where and how fast a run computes, or are in the point already
_SAME_RESULT = (
    "config",
    "experiment",
    "method",
    "methods",
    "variant",
    "run_root",
    "seed_everything",
    "save_every",
    "save_seconds",
    "data.shots",
    "data.draw",
    "data.root",
    "data.num_workers",
    "data.cache_clips",
    "data.cache_dir",
    "data.cache_gb",
    "data.cache_features",
    "data.feature_cache_gb",
    "data.eval_batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.callbacks",
    "trainer.profiler",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
    "model.scoring.max_tokens",
)

_NAMED = ("experiment", "method", "variant", "data.shots")
"""Of a point by themselves, or never."""


@dataclass(frozen=True)
class Entry:
    """One run of a report.

    Args:
        run: run folder; it may still be empty.
        point: settings that distinguish the run from the others, seed and draw included.
        where: folder that paths in its configuration are relative to.
        chosen: settings that its validation videos chose; they are not in the point.
    """

    run: RunFolder
    point: Point
    where: Path
    chosen: Point = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it has figures."""
        return self.run.accuracy is not None

    def member(self) -> Member:
        """The run as `rbft.evaluation.comparison` takes it."""
        if not self.finished:
            return Member(self.point, None, self.run.predictions)
        run = self.run
        chance, majority = run.floors
        return Member(
            self.point,
            run.accuracy,
            run.predictions,
            run.validation,
            run.labels,
            self.chosen,
            chance,
            majority,
            run.labelled,
        )


@dataclass(frozen=True)
class _Found:
    """A run before its distinguishing settings are known. A planned run of a sweep has settings before it has files."""

    run: RunFolder
    where: Path
    planned: Mapping[str, Any]
    like: RunFolder

    def setting(self, key: str) -> Any:
        return self.planned[key] if key in self.planned else self.like.setting(key)

    @property
    def experiment(self) -> str:
        return self.like.experiment

    @property
    def method(self) -> str:
        return str(self.planned.get("method") or self.like.method)

    @property
    def variant(self) -> str:
        return str(self.like.config.get("variant") or self.run.path.resolve().parent.name)


def collect(folders: Sequence[str]) -> list[Entry]:
    """All runs in the folders, below them, or of a sweep's folder.

    Raises:
        ConfigError: A folder does not exist or holds no run.
        DataError: Two folders hold the same run, or runs that nothing tells apart.
    """
    by_folder: dict[Path, _Found] = {}
    for name in folders:
        folder = expanded(name)
        if not folder.is_dir():
            raise ConfigError(f"{name}: no such folder; name run folders, a folder of runs, or a sweep's folder.")
        new = _of_sweep(folder) if (folder / "plan.json").is_file() else _below(folder)
        if not new:
            raise ConfigError(
                f"{name}: no run in it or below it: nothing that holds an experiment.yaml. Run "
                "`rbft fit` first, or name the run root."
            )
        for run in new:
            by_folder.setdefault(run.run.path.resolve(), run)
    runs = list(by_folder.values())
    several = len({run.experiment for run in runs}) > 1
    replicates = planned_replicates(folders)
    swept = _swept(runs, replicates)
    points = []
    for run in runs:
        others = [other for other in runs if (other.experiment, other.method) == (run.experiment, run.method)]
        point: Point = {"experiment": run.experiment} if several else {}
        point |= {"method": run.method, "data.shots": run.setting("data.shots")}
        keys = _differing(others, replicates) | (swept & run.planned.keys())
        point |= {key: run.setting(key) for key in sorted(keys)}
        points.append(point | {key: run.setting(key) for key in replicates})
    _tell_variants_apart(runs, points, replicates)
    return [Entry(run.run, point, run.where) for run, point in zip(runs, points, strict=True)]


def planned_replicates(folders: Sequence[str]) -> tuple[str, ...]:
    """Keys that repeat a run: those of the sweeps among the folders, as far as these agree, else seed and draw."""
    planned = {tuple(map(str, plan["replicates"])) for plan in _plans(folders) if plan.get("replicates")}
    return planned.pop() if len(planned) == 1 else REPLICATES


def _tell_variants_apart(runs: Sequence[_Found], points: Sequence[Point], replicates: Sequence[str]) -> None:
    """Add the variant to the points of runs with equal settings where their data or imported rationales differ.

    Raises:
        DataError: Two runs are the same, or of one variant.
    """
    groups = [key_of(shared(point, replicates)) for point in points]
    apart: set[str] = set()
    seen: dict[str, _Found] = {}
    for run, point, group in zip(runs, points, groups, strict=True):
        if (other := seen.setdefault(key_of(point), run)) is run:
            continue
        if _same_work(other.run, run.run):
            raise DataError(
                f"{other.run.path} and {run.run.path} hold the same run: method, settings, seed and draw "
                "are equal, and counted twice it would make the interval too narrow. Leave one of them out."
            )
        apart.add(group)
    variants: dict[str, _Found] = {}
    for run, point, group in zip(runs, points, groups, strict=True):
        if group not in apart:
            continue
        # a sweep names the draw in it, which repeats a run
        point["variant"] = re.sub(rf"-draw{run.setting('data.draw')}(?!\w)", "", run.variant)
        if (other := variants.setdefault(key_of(point), run)) is not run:
            raise DataError(
                f"{other.run.path} and {run.run.path} hold runs of the same settings, seed, draw and variant over "
                "other data or rationales, which one table cannot tell apart. Report on them one by one."
            )


def _same_work(run: RunFolder, other: RunFolder) -> bool:
    """Whether all that both runs have finished was made from the same inputs, and their rationales are the same ones.

    Rationales that were imported stand in the place of those that a model would have written from the same inputs.
    """
    ours, theirs = (each.stages if (each.path / EXPERIMENT).is_file() else {} for each in (run, other))
    return all(
        ours[name][1].fingerprint == theirs[name][1].fingerprint
        and ours[name][1].outputs.get(RATIONALES) == theirs[name][1].outputs.get(RATIONALES)
        for name in ours.keys() & theirs.keys()
    )


def choose_entries(
    entries: Sequence[Entry], keys: Sequence[str], replicates: Sequence[str] = REPLICATES
) -> list[Entry]:
    """From runs that differ in `keys` alone, the one that validation videos choose; all runs where there are no keys.

    Args:
        entries: the runs.
        keys: settings that are chosen.
        replicates: keys that repeat a run, which none of them may be.

    Raises:
        ConfigError: No runs of a method differ in a key.
        DataError: A run cannot be chosen by validation videos.
    """
    swept = {key for entry in entries for key in entry.point}
    if unknown := [key for key in keys if key not in swept - {"method", *replicates}]:
        raise ConfigError(f"--choose {unknown[0]}: no runs of a method differ in it; {nearest(unknown[0], swept)}")
    return [
        replace(entries[place], point=without(entries[place].point, keys), chosen=chosen)
        for place, chosen in choose_runs([entry.member() for entry in entries], keys)
    ]


def planned_choice(folders: Sequence[str], entries: Sequence[Entry]) -> list[str]:
    """Settings that the sweeps among the folders choose on validation videos, as far as runs differ in them."""
    keys = dict.fromkeys(str(key) for plan in _plans(folders) for key in plan.get("choose", ()))
    return [key for key in keys if any(key in entry.point for entry in entries)]


def _plans(folders: Sequence[str]) -> list[Any]:
    return [read_json(path) for name in folders if (path := expanded(name) / "plan.json").is_file()]


def choose_baseline(entries: Sequence[Entry], wanted: str | None, folders: Sequence[str] = ()) -> Point | None:
    """The baseline: the method asked for, else that of the sweeps, else `sft` where there is such a run, else none.

    Args:
        entries: the runs.
        wanted: method that was asked for; None: none was.
        folders: Where the runs were found. Sweeps among these folders that compare with different runs have no say.

    Raises:
        ConfigError: No run is of that method.
    """
    methods = {str(entry.point["method"]) for entry in entries}
    if wanted is None:
        planned = [plan["baseline"] for plan in _plans(folders) if plan.get("baseline")]
        if planned and all(baseline == planned[0] for baseline in planned):
            # what has one value in all runs distinguishes none
            baseline: Point = {key: planned[0][key] for key in planned[0] if any(key in e.point for e in entries)}
            if baseline and any(baseline.items() <= entry.point.items() for entry in entries):
                return baseline
        return {"method": "sft"} if "sft" in methods and len(methods) > 1 else None
    if wanted not in methods:
        raise ConfigError(f"--baseline {wanted}: no run is of that method; {nearest(wanted, methods)}")
    return {"method": wanted}


def _below(folder: Path) -> list[_Found]:
    runs = [RunFolder(path) for path in find_runs(folder)]
    return [_Found(run, Path(), {}, run) for run in runs]


def _of_sweep(folder: Path) -> list[_Found]:
    """The runs that a sweep plans, those without a folder too as long as one has one.

    Raises:
        DataError: plan.json is not the plan of a sweep.
    """
    path = folder / "plan.json"
    plan = read_json(path)
    try:
        where = Path(plan["where"])
        where = where if where.is_dir() else Path()
        folders = [where / row["folder"] for row in plan["runs"].values()]
        # beside the sweep in its run root, also where that was moved or copied
        beside = [folder.resolve().parent.parent.joinpath(*path.parts[-3:]) for path in folders]
        moved = any((path / EXPERIMENT).is_file() for path in beside)
        points = [dict(row["point"]) for row in plan["runs"].values()]
        planned = dict(zip(beside if moved else folders, points, strict=True))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not the plan of a sweep ({error!r}).") from error
    begun = {path: RunFolder(path) for path in planned if (path / EXPERIMENT).is_file()}
    if not begun:
        return []

    def nearest_begun(path: Path) -> RunFolder:
        """The run itself, or the begun run of its method with most settings in common; the others are taken from it."""

        def alike(other: Path) -> tuple[bool, int]:
            same = [planned[other].get(key) == value for key, value in planned[path].items()]
            return planned[other].get("method") == planned[path].get("method"), sum(same)

        return begun[path] if path in begun else begun[max(begun, key=alike)]

    return [_Found(begun.get(path, RunFolder(path)), where, planned[path], nearest_begun(path)) for path in planned]


def _differing(runs: Sequence[_Found], replicates: Sequence[str]) -> set[str]:
    """Dotted keys that are not the same in all runs of a method, but for replicates, and what changes no result."""
    keys = {key for run in runs for key in [*_flat(run.like.config), *run.planned]}
    # what a sweep is over changes a result by being told, and a seed does where it does not repeat a run
    told = {*REPLICATES, *(key for run in runs for key in run.planned)}
    same = {key for key in keys - told if any(key == other or key.startswith(f"{other}.") for other in _SAME_RESULT)}
    return {key for key in keys - same - {*replicates, *_NAMED} if _varies(key, runs, replicates)}


def _swept(runs: Sequence[_Found], replicates: Sequence[str]) -> set[str]:
    """Dotted keys that sweeps give several values: a method that has one of them alone is compared at that value."""
    keys = {key for run in runs for key in run.planned} - {*replicates, *_NAMED}
    return {key for key in keys if _varies(key, [run for run in runs if key in run.planned], replicates)}


def _varies(key: str, runs: Sequence[_Found], replicates: Sequence[str]) -> bool:
    """Whether a key distinguishes runs.

    One that has the seed's or the draw's own value in every run (`seed: ${seed_everything}`) does not.
    """

    def equal(run: _Found, other: str) -> bool:
        # where no run of that seed has begun, the run that stands for it says whether a key follows its seed or draw
        source: _Found | RunFolder = run if key in run.planned else run.like
        return str(source.setting(key)) == str(source.setting(other))

    if len({json.dumps(run.setting(key), sort_keys=True, default=str) for run in runs}) < 2:
        return False
    return not any(all(equal(run, other) for run in runs) for other in {*replicates, *REPLICATES} - {key})


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all values that are no mappings."""
    keys: list[str] = []
    for key, value in values.items():
        keys += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}"]
    return keys
