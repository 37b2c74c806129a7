"""A run that was killed or stopped goes on with the same command, and ends with the bits of an undisturbed one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
from tests.support.runs import (
    ALLOW,
    Run,
    digests,
    fit,
    fit_elsewhere,
    rows,
    run_experiment,
    signal_once,
    write_experiment,
)

from rbft.training.checkpoint import MANIFEST, newest_whole

pytest_plugins = ["tests.support.run_fixtures"]

BATCHES = 6  # of an epoch; two make an optimiser step
WEIGHTS = "*/adapter/adapter_model.safetensors"


@pytest.fixture
def stopped(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> Callable[..., Path]:
    """Writes the experiment of `finished`, with a signal at one place of it; `copy` reads the same file."""

    def write(number: int, loop: str, batch: int) -> Path:
        changes = signal_once(tmp_path, number, loop, batch)
        # what a callback might have changed is made again, so that of a finished training it must not be
        changes = changes if loop == "train" else {"stages": {"write" if loop == "predict" else "test": changes}}
        return write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), changes)

    return write


def assert_same_results(run: Path, undisturbed: Path) -> None:
    assert digests(run, WEIGHTS) == digests(undisturbed, WEIGHTS)
    for name in ("write/rationales.jsonl", "predictions.jsonl", "metrics.json"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_killed_before_anything_was_saved(tmp_path: Path, stopped: Callable[..., Path], finished: Run) -> None:
    """Epochs that are over sooner than `save_seconds` leave no checkpoint: the stage begins anew."""
    config = stopped(signal.SIGKILL, "train", BATCHES + 3)
    sparse = ("--save_every", "0", "--save_seconds", "3600")
    killed = fit_elsewhere("--config", config, "--run_root", tmp_path / "runs", *sparse)
    folder = tmp_path / "runs" / "tiny" / "rbft" / "seed0"
    assert killed.code == -signal.SIGKILL, killed.err
    assert (folder / "rationale" / "started.json").is_file() and not (folder / "rationale" / "checkpoints").exists()
    again = fit_elsewhere("--config", config, "--run_root", tmp_path / "runs", *sparse)
    assert again.code == 0, again.err
    assert_same_results(folder, finished.folder)


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(2, id="between two micro-batches of a step"),
        pytest.param(BATCHES + 3, id="in the second epoch", marks=pytest.mark.slow),
    ],
)
def test_killed_in_stage_1(batch: int, tmp_path: Path, stopped: Callable[..., Path], finished: Run) -> None:
    config = stopped(signal.SIGKILL, "train", batch)
    killed = fit_elsewhere("--config", config, "--run_root", tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny" / "rbft" / "seed0"
    assert killed.code == -signal.SIGKILL, killed.err
    assert newest_whole(folder / "rationale" / "checkpoints" / MANIFEST).number >= 1
    assert not (folder / "rationale" / "stage.json").exists()

    again = fit("--config", config, "--run_root", tmp_path / "runs")
    assert again.code == 0, again.err
    assert "write: done already" in again.out
    assert "rationale: continuing where it stopped" in again.out
    assert_same_results(folder, finished.folder)


def test_killed_while_writing(tmp_path: Path, stopped: Callable[..., Path]) -> None:
    sampling = ("--model.writer.temperature", "1", "--model.writer.samples", "2")
    config = stopped(signal.SIGKILL, "predict", 0)
    flags = ("--config", config, "--run_root", tmp_path / "runs", "--stage", "write", *sampling)
    killed = fit_elsewhere(*flags)
    assert killed.code == -signal.SIGKILL, killed.err
    folder = tmp_path / "runs" / "tiny" / "rbft" / "seed0" / "write"
    part = folder / "parts" / "rank0.jsonl"
    before = part.read_bytes()
    assert len(rows(part)) == 8, "one batch of four videos was written, twice each"
    assert not (folder / "rationales.jsonl").exists()

    with part.open("ab") as stream:  # a kill in the middle of a line
        stream.write(before.splitlines(keepends=True)[0][:40])
    assert fit(*flags).code == 0
    assert part.read_bytes().startswith(before), "what was written stays as it was"
    written = rows(folder / "rationales.jsonl")
    assert len(written) == len({(row["id"], row["sample"]) for row in written}) == len(rows(part)) == 12
    undisturbed = run_experiment(config, tmp_path / "undisturbed", "--stage", "write", *sampling)
    assert (undisturbed.folder / "write" / "rationales.jsonl").read_bytes() == (
        folder / "rationales.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("number", "code", "batch", "workers"),
    [
        pytest.param(signal.SIGINT, 130, 2, 0, id="Ctrl-C in the middle of an epoch"),
        pytest.param(signal.SIGTERM, 143, BATCHES - 1, 0, id="SIGTERM at the end of an epoch"),
        pytest.param(signal.SIGINT, 130, 2 * BATCHES - 1, 0, id="Ctrl-C at the very end"),
        pytest.param(signal.SIGINT, 130, BATCHES + 2, 1, id="Ctrl-C in the second epoch, with a decoding process"),
    ],
)
def test_stopped_in_stage_1(
    number: signal.Signals, code: int, batch: int, workers: int, copy: Run, stopped: Callable[..., Path], finished: Run
) -> None:
    stopped(number, "train", batch)
    for stage in ("rationale", "classification", "test"):
        shutil.rmtree(copy.folder / stage)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    flags = ("--data.num_workers", str(workers), "--stage", "rationale")
    result = copy.again(*flags)
    assert result.code == code, result.err
    assert (
        f"To continue: rbft fit --config {copy.config} --run_root {copy.root} {' '.join((*flags, *ALLOW))}\n"
        in result.err
    )
    assert result.err.count("rbft: ") == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not (copy.folder / "rationale" / "stage.json").exists()
    assert not (copy.folder / "metrics.json").exists()

    again = copy.again(*flags)
    assert again.code == 0, again.err
    assert "rationale: continuing where it stopped" in again.out
    assert digests(copy.folder / "rationale", "adapter/*") == digests(finished.folder / "rationale", "adapter/*")


@pytest.mark.parametrize(("loop", "stage"), [("predict", "write"), ("test", "test")])
def test_stopped_outside_training(
    loop: str, stage: str, copy: Run, stopped: Callable[..., Path], finished: Run
) -> None:
    stopped(signal.SIGTERM, loop, 0)
    shutil.rmtree(copy.folder / stage)
    result = copy.again("--stage", stage)
    assert result.code == 143, result.err
    assert not (copy.folder / stage / "stage.json").exists()
    assert copy.again("--stage", stage).code == 0
    assert_same_results(copy.folder, finished.folder)


def test_other_number_of_processes_cannot_go_on(
    copy: Run, stopped: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(signal.SIGINT, "train", 2)
    shutil.rmtree(copy.folder / "rationale")
    assert copy.again("--stage", "rationale").code == 130
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    result = copy.again("--stage", "rationale")
    assert result.code == 1
    assert "interrupted on 1 processes" in result.err and "trainer.devices" in result.err
