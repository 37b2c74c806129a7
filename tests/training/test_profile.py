"""Where a stage's time goes: parts that do not overlap, sum to the whole, and cost nothing when nobody asks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.runs import Result, fit, run_experiment, write_experiment

from rbft.training.profile import PARTS, Stopwatch
from rbft.vlm.model import VLM

pytest_plugins = ["tests.support.run_fixtures"]


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_every_moment_belongs_to_the_innermost_part() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    clock.time = 1.0
    watch.begin("optimiser")
    clock.time = 3.0
    watch.begin("head")
    clock.time = 7.0
    watch.end()
    clock.time = 15.0
    watch.end()
    clock.time = 31.0
    assert watch.seconds() == {"other": 17.0, "optimiser": 10.0, "head": 4.0}
    assert watch.seconds() == {"other": 17.0, "optimiser": 10.0, "head": 4.0}


def test_validation_takes_what_runs_inside_it() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    watch.begin("validation")
    clock.time = 1.0
    watch.begin("language")
    clock.time = 3.0
    watch.end()
    watch.end()
    assert watch.seconds() == {"other": 0.0, "validation": 3.0}


def test_a_part_ends_with_an_exception() -> None:
    clock = Clock()
    watch = Stopwatch(clock)

    def fails() -> None:
        clock.time = 2.0
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watch.timed("vision", fails)()
    clock.time = 5.0
    assert watch.seconds() == {"vision": 2.0, "other": 3.0}


def slowly(owner: type[Any], name: str, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Makes a method slower, and notes by how much."""
    method, waited = getattr(owner, name), []

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        time.sleep(seconds)
        waited.append(time.perf_counter() - start)
        return method(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, slow)
    return waited


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Path:
    return write_experiment(tmp_path_factory.mktemp("profile") / "tiny.yaml", clips, family_folder("qwen2_5_vl"))


def profile_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "profile.json").read_text())
    assert sum(part["seconds"] for part in found["parts"].values()) == pytest.approx(found["seconds"], rel=1e-9)
    assert sum(part["share"] for part in found["parts"].values()) == pytest.approx(1)
    assert set(found["parts"]) <= set(PARTS)
    return found


def test_a_profiled_run(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = slowly(VLM, "_encoded", monkeypatch, 0.05)
    run = run_experiment(config, tmp_path / "runs", "--profile", "--data.cache_features", "false", method="sft")
    trained, tested = profile_of(run.folder / "classification"), profile_of(run.folder / "test")
    assert (trained["batches"], trained["workers"], trained["processes"]) == (6, 0, 1)
    assert {
        "loading",
        "decode",
        "processor",
        "vision",
        "language",
        "head",
        "backward",
        "optimiser",
        "validation",
        "saving",
        "other",
    } <= set(trained["parts"])
    assert "data" not in trained["parts"], "nothing waits for workers where there are none"
    assert {"decode", "vision", "language", "head"} <= set(tested["parts"])
    assert not {"backward", "optimiser"} & set(tested["parts"])
    assert len(waited) == 6 + 2 + 2 + 5, "clips trained on, validated, calibrated with and tested"
    assert trained["parts"]["vision"]["seconds"] >= sum(waited[:6])
    assert trained["parts"]["validation"]["seconds"] >= sum(waited[6:8])
    assert tested["parts"]["validation"]["seconds"] >= sum(waited[8:10])
    assert tested["parts"]["vision"]["seconds"] >= sum(waited[10:])
    for stage in ("classification", "test"):
        assert f"time of {stage}" in run.result.out
        events = EventAccumulator(str(run.folder / stage / "tensorboard")).Reload()
        assert "profile" in events.Tags()["images"]


def test_waiting_for_workers_is_told_from_decoding(config: Path, tmp_path: Path) -> None:
    flags = ("--profile", "--data.num_workers", "1", "--stage", "classification")
    run = run_experiment(config, tmp_path / "runs", *flags, method="sft")
    parts = profile_of(run.folder / "classification")["parts"]
    assert "data" in parts and not {"decode", "processor"} & set(parts)


def test_nothing_is_measured_unless_asked(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(Stopwatch, "__init__", made)
    run = run_experiment(config, tmp_path / "runs", "--stage", "classification", method="sft")
    assert not (run.folder / "classification" / "profile.json").exists()
    assert "time of" not in run.result.out


def test_another_profiler_is_refused(config: Path, tmp_path: Path) -> None:
    flags = ("--profile", "--trainer.profiler", "simple", "--method", "sft", "--stage", "classification")
    result: Result = fit("--config", config, "--run_root", tmp_path / "runs", *flags)
    assert result.code == 2
    assert "--profile and trainer.profiler" in result.err
