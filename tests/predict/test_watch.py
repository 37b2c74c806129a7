"""Answering what comes into a folder: whole files, each once, through bad files, kills and stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import REPOSITORY, Run

from rbft.__main__ import main
from rbft.errors import DataError, Interrupted
from rbft.predict.answers import Answer
from rbft.predict.inputs import VideoInput
from rbft.predict.watch import Watcher, read_answered, watch

pytest_plugins = ["tests.support.run_fixtures"]


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def names(watcher: Watcher) -> list[str]:
    return [Path(video.name).name for video, _ in watcher.ready()]


def test_a_file_is_answered_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    clock = Clock()
    watcher = Watcher(tmp_path, {}, 2.0, clock)
    growing = tmp_path / "a.mp4"
    growing.write_bytes(b"1")
    (tmp_path / "notes.txt").write_text("no video")
    assert names(watcher) == []
    clock.now += 1.5
    growing.write_bytes(b"12")
    assert names(watcher) == []
    clock.now += 1.5
    assert names(watcher) == [], "it grew meanwhile"
    clock.now += 1.0
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.mp4").write_bytes(b"1")
    assert names(watcher) == ["a.mp4"]
    assert names(watcher) == []
    clock.now += 2.0
    assert names(watcher) == ["b.mp4"]
    os.utime(growing, ns=(1, 1))
    assert names(watcher) == []
    clock.now += 2.0
    assert names(watcher) == ["a.mp4"], "written anew, it is another video"
    growing.unlink()
    assert names(watcher) == []


def test_what_an_earlier_watch_answered_is_known(tmp_path: Path) -> None:
    clips, to = tmp_path / "clips", tmp_path / "answers.jsonl"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (clips / name).write_bytes(b"1")
    rows = [
        {"video": str(clips / "a.mp4"), "predicted": "x", "modified": (clips / "a.mp4").stat().st_mtime},
        {"video": str(clips / "b.mp4"), "predicted": None, "modified": 5.0},
        {"video": str(clips / "c.mp4"), "predicted": "x"},
    ]
    to.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"video": "torn')
    clock = Clock()
    watcher = Watcher(clips, read_answered(to), 1.0, clock)
    names(watcher)
    clock.now += 1
    assert names(watcher) == ["b.mp4"], "it was changed since"
    to.write_text('{"id": 3}\n')
    with pytest.raises(DataError, match=r"line 1: no answer of rbft predict; name another file with --to"):
        read_answered(to)
    assert read_answered(tmp_path / "none.jsonl") == {}
    to.write_text('{"video": "torn')
    assert read_answered(to) == {}, "it goes on after the first answer, too"
    to.write_text("mine")
    with pytest.raises(DataError, match=r"no answers of rbft predict; name another file with --to, or delete"):
        read_answered(to)


def test_answers_are_on_the_disk_before_they_are_shown_and_a_signal_ends_it(tmp_path: Path) -> None:
    clips, to = tmp_path / "clips", tmp_path / "answers.jsonl"
    clips.mkdir()
    for number in range(20):
        (clips / f"{number:02}.mp4").write_bytes(b"1")
    shown: list[str] = []

    def answer(videos: Sequence[VideoInput]) -> list[Answer]:
        if len(shown) >= 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return [Answer(video.name, None, None, error="is text, not a video") for video in videos]

    def show(said: Answer) -> None:
        assert said.video in [json.loads(line)["video"] for line in to.read_text().splitlines()]
        shown.append(said.video)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"stopped; 16 videos were answered, in .*answers.jsonl"):
        watch(clips, answer, show, to=to, every=0.05, begun=lambda _: None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(to.read_text().splitlines()) == 16, "those in work were answered, no others were begun"
    with pytest.raises(DataError, match="there is no such folder; make it first"):
        watch(clips / "none", answer, show, to=to, every=1, begun=lambda _: None)


def rows(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return {Path(row["video"]).name: row for row in map(json.loads, lines)}


@pytest.mark.slow
def test_the_command_answers_what_comes_until_it_is_stopped(finished: Run, clips: Path, tmp_path: Path) -> None:
    inbox, to = tmp_path / "inbox", tmp_path / "answers.jsonl"
    inbox.mkdir()
    made = sorted((clips / "test").rglob("*.mp4"))
    line = ["predict", "--run", str(finished.folder), "--watch", str(inbox), "--to", str(to), "--every", "0.2"]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def wait(count: int) -> None:
        end = time.monotonic() + 60
        while len(rows(to)) < count:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)

    for stop, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            [sys.executable, "-m", "rbft", *line],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            stderr=subprocess.STDOUT,
        )
        timer = threading.Timer(200, process.kill)
        timer.start()
        assert process.stdout is not None
        while "watching" not in (said := process.stdout.readline()):
            assert said, "it ended before it watched"
        if stop == signal.SIGKILL:
            (inbox / "bad.mp4").write_text("no video")
            shutil.copy(made[0], inbox / "one.mp4")
            wait(2)
        else:
            assert "2 videos were answered before" in said
            shutil.copy(made[1], inbox / "two.mp4")
            wait(3)
        process.send_signal(stop)
        rest, _ = process.communicate(timeout=60)
        timer.cancel()
        assert process.returncode == code, rest
    found = rows(to)
    assert "is text, not a video" in found["bad.mp4"]["error"] and found["bad.mp4"]["predicted"] is None
    assert len(to.read_text().splitlines()) == 3, "each once, over the kill"
    assert f"stopped; 1 video was answered, in {to}" in rest
    assert (
        main(["predict", "--run", str(finished.folder), str(inbox / "two.mp4"), "--to", str(tmp_path / "a.jsonl")]) == 0
    )
    alone = rows(tmp_path / "a.jsonl")["two.mp4"]
    assert {key: found["two.mp4"][key] for key in alone} == alone, "as without watching"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--watch", "x", "a.mp4"], "name no other videos"),
        (["--watch", "x", "--to", "a.csv"], "name a .jsonl file"),
        (["--watch", "x", "--every", "0"], "--every 0: must be above 0"),
        (["--watch", "x", "--frame-rate", "5"], "--frame-rate: nothing says when a folder of images is whole"),
        ([], "name videos, folders of videos or a table; or --watch FOLDER"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--run", "nowhere", *flags]) == 2
    assert message in capsys.readouterr().err
