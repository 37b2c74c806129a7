"""A run of which everything is done is told so without its model, and only while nothing of it changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.runs import ALLOW, Run

from rbft.experiment import read_experiment
from rbft.pipeline.finished import print_finished
from rbft.vlm.processing import ClipProcessor

pytest_plugins = ["tests.support.run_fixtures"]


def is_finished(run: Run, *flags: str) -> bool:
    return print_finished(read_experiment(["--config", str(run.config), "--run_root", str(run.root), *flags, *ALLOW]))


def test_says_what_was_found_without_a_processor(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a processor was made")

    monkeypatch.setattr(ClipProcessor, "__init__", refuse)
    result = copy.again()
    assert result.code == 0, result.err
    headline = next(line for line in copy.result.out.splitlines() if line.startswith("accuracy "))
    assert headline in result.out and "test: done already" in result.out
    assert "everything was done already" in result.out


def test_a_changed_video_is_noticed(copy: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = Path(shutil.copytree(clips, tmp_path / "clips"))
    there = ("--data.root", str(moved))
    assert is_finished(copy, *there)
    capsys.readouterr()
    with next((moved / "train").rglob("*.mp4")).open("ab") as stream:
        stream.write(b"x")
    assert not is_finished(copy, *there)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "flags",
    [
        ("--model.optim.lr", "0.02"),
        ("--data.on_bad_video", "skip"),
        ("--restart",),
        ("--dry_run",),
        ("--stage", "test"),
    ],
    ids=["setting", "videos left out", "restart", "plan", "one stage"],
)
def test_what_else_must_be_looked_at(copy: Run, flags: tuple[str, ...]) -> None:
    assert not is_finished(copy, *flags)


@pytest.mark.parametrize("name", ["report.html", "classification/stage.json"])
def test_what_is_missing_is_noticed(copy: Run, name: str) -> None:
    (copy.folder / name).unlink()
    assert not is_finished(copy)
