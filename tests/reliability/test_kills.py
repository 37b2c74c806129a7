"""Killed at any moment of any stage, the same command ends with the very files of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.kill_in_save import KillInSave, moments
from tests.support.killed import Command, logged, step_log
from tests.support.runs import digests, rows, write_experiment

from rbft.training.checkpoint import MANIFEST, checkpoints, newest_whole

pytest_plugins = ["tests.support.run_fixtures"]

STAGES = ("write", "rationale", "classification", "test")
SAVE_EVERY = 2  # optimiser steps; an epoch has three
ACCUMULATE = 2
CHANGES: dict[str, Any] = {
    "save_every": SAVE_EVERY,
    "data": {"eval_batch_size": 1},
    "model": {"writer": {"samples": 2, "temperature": 1.0}},
    "stages": {"classification": {"trainer": {"max_epochs": 2}}},
}
RESULTS = ("*/adapter/*", "write/rationales.jsonl", "predictions.jsonl", "metrics.json", "test/predictions.jsonl")


@dataclass(frozen=True)
class Place:
    """One experiment with its run folder."""

    command: Command
    folder: Path
    log: Path

    def results(self) -> dict[str, str]:
        return {name: digest for pattern in RESULTS for name, digest in digests(self.folder, pattern).items()}


@pytest.fixture
def make(clips: Path, family_folder: Callable[[str], Path]) -> Callable[..., Place]:
    """Prepares an experiment in a folder."""

    def build(folder: Path, ranks: int = 1, workers: int = 0) -> Place:
        folder.mkdir(parents=True)
        log = folder / "steps.jsonl"
        config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), CHANGES | step_log(log))
        flags = ["--config", str(config), "--run_root", str(folder / "runs"), "--data.num_workers", str(workers)]
        if ranks > 1:
            flags += ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp"]
        return Place(Command(tuple(flags), folder / "out.txt", ranks), folder / "runs/tiny/rbft/seed0", log)

    return build


def finish(place: Place, hook: Callable[[], None] | None = None) -> None:
    codes = place.command.to_its_end(hook)
    assert codes == [0] * place.command.ranks, place.command.out.read_text()[-3000:]


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_in(place: Place, stage: str, delay: float, marker: str = "started.json") -> bool:
    """Kill the next run so long after a stage has begun."""
    path = place.folder / stage / marker
    before = stamp(path)
    return place.command.killed_when(lambda: stamp(path) != before, delay)


def seconds_of(place: Place, stage: str) -> float:
    """From the beginning of a stage to its marker."""
    return (stamp(place.folder / stage / "stage.json") - stamp(place.folder / stage / "started.json")) / 1e9


def lost_steps(place: Place) -> list[int]:
    """For each killed process and stage, how many optimiser steps it had finished that were computed again."""
    found = []
    for stage in ("rationale", "classification"):
        at = {"begin": [], "end": []}
        for what, lines in at.items():
            lines += [(line["pid"], (line["epoch"], line["index"])) for line in logged(place.log, stage, what)]
        for pid in dict.fromkeys(pid for pid, _ in at["end"]):
            last = max(i for i, (other, _) in enumerate(at["begin"]) if other == pid)
            again = {position for _, position in at["begin"][last + 1 :]}
            found.append(sum(other == pid and position in again for other, position in at["end"]) // ACCUMULATE)
    return found


def assert_same_order(place: Place, undisturbed: Place) -> None:
    """Each row once an epoch, in the order of the undisturbed run; what was computed again was the same."""
    for stage in ("rationale", "classification"):
        for rank in range(place.command.ranks):
            of_run = []
            for log in (place.log, undisturbed.log):
                found: dict[tuple[int, int], list[int]] = {}
                for line in logged(log, stage, "begin", rank):
                    at = (line["epoch"], line["index"])
                    assert found.setdefault(at, line["rows"]) == line["rows"], "another batch than before the kill"
                of_run.append([found[at] for at in sorted(found)])
            assert of_run[0] == of_run[1]
        for epoch in (0, 1):
            # the rows of a micro-batch that only fills up weigh nothing
            parts: dict[tuple[int, int], list[int]] = {}
            for rank in range(place.command.ranks):
                for line in logged(place.log, stage, "begin", rank):
                    if line["epoch"] == epoch:
                        real = [row for row, w in zip(line["rows"], line["weights"], strict=True) if w > 0]
                        parts[rank, line["index"]] = real
            seen = Counter(row for part in parts.values() for row in part)
            kept = sum(row["kept"] for row in rows(place.folder / "write/rationales.jsonl"))
            assert seen == Counter(range(kept if stage == "rationale" else 6))


def assert_written_once(place: Place) -> None:
    parts = [row for part in (place.folder / "write/parts").glob("rank*.jsonl") for row in rows(part)]
    keys = [(row["id"], row["sample"]) for row in parts]
    assert len(keys) == len(set(keys)) == 12


def assert_nothing_lost(place: Place, undisturbed: Place) -> None:
    assert place.results() == undisturbed.results()
    assert_same_order(place, undisturbed)
    assert_written_once(place)
    assert not list(place.folder.rglob(".*.tmp")), "what killed processes left is gone"


@pytest.fixture(scope="module")
def references() -> dict[int, Place]:
    """Undisturbed runs by number of processes."""
    return {}


@pytest.fixture
def reference(
    make: Callable[..., Place], references: dict[int, Place], tmp_path_factory: Any
) -> Callable[[int], Place]:
    def get(ranks: int) -> Place:
        if ranks not in references:
            references[ranks] = make(tmp_path_factory.mktemp("undisturbed") / "place", ranks)
            finish(references[ranks])
        return references[ranks]

    return get


def kill_all_over(place: Place, undisturbed: Place, chance: random.Random) -> Counter[str]:
    """Kill up to three times in each stage and once between the two of training; then run to the end."""
    where: Counter[str] = Counter()
    for stage in STAGES:
        # the moment at which one stage of training is done and the next has not begun
        between = stage == "classification" and kill_in(place, "rationale", chance.uniform(0, 0.05), "stage.json")
        where["hand-over"] += int(between)
        for attempt in range(3):
            # a stage that was killed has less left to do
            delay = chance.uniform(0.05, 0.9) * seconds_of(undisturbed, stage) / (attempt + 1)
            if (place.folder / stage / "stage.json").exists() or not kill_in(place, stage, delay):
                break
            where[stage] += 1
    finish(place)
    return where


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("ranks", "workers", "kills"),
    [
        pytest.param(1, 0, 8, id="one process"),
        pytest.param(1, 1, 8, id="with a decoding process"),
        pytest.param(2, 1, 6, id="two processes"),
    ],
)
def test_killed_at_random(
    ranks: int, workers: int, kills: int, make: Callable[..., Place], reference: Callable[[int], Place], tmp_path: Path
) -> None:
    undisturbed, chance = reference(ranks), random.Random(f"{ranks}:{workers}")
    place, where = make(tmp_path / "killed", ranks, workers), Counter[str]()
    while True:
        where += kill_all_over(place, undisturbed, chance)
        assert_nothing_lost(place, undisturbed)
        if sum(where.values()) >= kills and where["rationale"] and where["classification"]:
            break
        for stage in STAGES[1:]:  # too few hit
            shutil.rmtree(place.folder / stage)
    lost = lost_steps(place)
    print(f"killed: {dict(where)}; steps computed again: {lost}")
    assert max(lost) <= SAVE_EVERY


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_in_saves(
    ranks: int, make: Callable[..., Place], reference: Callable[[int], Place], tmp_path: Path
) -> None:
    undisturbed, place = reference(ranks), make(tmp_path / "killed", ranks)
    assert place.command.to_its_end(KillInSave(("write", 0)))[0] == -signal.SIGKILL
    manifest, log = place.folder / "rationale" / "checkpoints" / MANIFEST, tmp_path / "moments"
    assert checkpoints(manifest) == []
    shutil.copytree(place.folder, tmp_path / "before")
    assert place.command.to_its_end(KillInSave(None, log)) == [0] * ranks
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "before", place.folder)
    # the first and the last of each kind, but for those that only come where there is something to remove
    every = {moment: number for number, moment in enumerate(moments(log)) if "unlink" not in moment[0]}
    ends = {name: [moment for moment in every if moment[0] == name] for name, _ in every}
    chosen = sorted({end for found in ends.values() for end in (found[0], found[-1])}, key=every.__getitem__)
    chosen = chosen[:: 1 if ranks == 1 else 3]
    assert len(chosen) >= (10 if ranks == 1 else 3)
    for moment in chosen:
        codes = place.command.to_its_end(KillInSave(moment))
        assert codes[0] == -signal.SIGKILL, (moment, codes)
        if manifest.exists():
            assert newest_whole(manifest) == checkpoints(manifest)[0], moment
    finish(place)
    print(f"killed at {chosen}")
    assert_nothing_lost(place, undisturbed)
