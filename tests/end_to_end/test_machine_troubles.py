"""What happens to a run from outside is a line that says what to do, as early as it can be known."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.runs import Result, fit, write_clips, write_experiment

from rbft.data.dataset import ExampleDataset
from rbft.pipeline import run as pipeline


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Result]:
    """`rbft fit` of the model as it is over two test clips."""
    clips = write_clips(tmp_path / "clips", {"test": (1, 1)})
    config = write_experiment(tmp_path / "small.yaml", clips, Path("builtin/tiny"))
    given = ("--config", config, "--run_root", tmp_path / "runs", "--data.cache_dir", tmp_path / "cache")
    return lambda *flags: fit(*given, "--method", "zero_shot", *flags)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("ModelCheckpoint", "save_every"), ("RichProgressBar", "progress by itself"), ("ModelSummary", "--dry_run")],
)
def test_callbacks_that_a_run_has_itself_are_refused_before_work(command, tmp_path, name, instead):
    result = command("--trainer.callbacks", f'[{{"class_path": "lightning.pytorch.callbacks.{name}"}}]')
    assert result.code == 2
    assert f"trainer.callbacks: take {name} out" in result.err
    assert instead in result.err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_folder_that_is_removed_meanwhile(command, tmp_path, monkeypatch, when):
    test = pipeline._RUNS["test"]

    def removing(context):
        if when == "before":
            shutil.rmtree(tmp_path / "runs/small")
        result = test(context)
        if when == "after":
            shutil.rmtree(tmp_path / "runs/small")
        return result

    monkeypatch.setitem(pipeline._RUNS, "test", removing)
    result = command()
    assert result.code == 1
    assert "was removed while the run was going" in result.err
    monkeypatch.undo()
    assert command().code == 0


def test_a_decoding_process_that_is_killed(command, monkeypatch):
    def killed(self, draw):
        assert torch.utils.data.get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ExampleDataset, "__getitem__", killed)
    result = command("--data.num_workers", "1", "--data.cache_features", "false")
    assert result.code == 75
    assert "a decoding process (" in result.err
    assert "Lower data.num_workers" in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_clip_that_is_replaced_meanwhile(command, tmp_path, monkeypatch, workers):
    first, second = sorted((tmp_path / "clips").rglob("*.mp4"))
    test = pipeline._RUNS["test"]

    def replacing(context):
        shutil.copy(first, second)
        return test(context)

    assert command("--data.num_workers", workers).code == 0, "now its features are kept, and no video is opened"
    monkeypatch.setitem(pipeline._RUNS, "test", replacing)
    result = command("--data.num_workers", workers, "--restart")
    assert result.code == 1
    assert f"{second} was replaced while the run was going" in result.err


def test_a_clip_that_is_only_touched_is_the_same(command, tmp_path, monkeypatch):
    test = pipeline._RUNS["test"]

    def touching(context):
        for path in (tmp_path / "clips").rglob("*.mp4"):
            os.utime(path, (1, 1))
        return test(context)

    monkeypatch.setitem(pipeline._RUNS, "test", touching)
    assert command().code == 0
