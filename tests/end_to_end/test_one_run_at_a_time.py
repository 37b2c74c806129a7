"""Two processes never work in one run folder, whichever commands they are."""

from __future__ import annotations

import json
import os
import socket
import threading

from tests.support.runs import fit, write_clips, write_experiment

from rbft.__main__ import main
from rbft.runs.lock import Holder, RunLock


def test_a_second_fit_is_refused_at_once_or_waits(tmp_path):
    clips = write_clips(tmp_path / "clips", {"train": (2, 2), "test": (1, 1)})
    config = write_experiment(tmp_path / "two.yaml", clips, "builtin/tiny")
    arguments = ("--config", config, "--run_root", tmp_path / "runs", "--data.cache_dir", tmp_path / "cache")
    lock = RunLock(tmp_path / "runs/two/zero_shot/seed0")
    assert lock.acquire()
    lock.note(Holder(socket.gethostname(), os.getpid(), os.getpid()))

    refused = fit(*arguments, "--method", "zero_shot")
    assert refused.code == 1
    assert f"process {os.getpid()} on {socket.gethostname()}" in refused.err
    assert not (tmp_path / "cache").exists(), "no video was looked at"
    assert fit(*arguments, "--method", "zero_shot", "--dry_run").code == 0
    assert fit(*arguments, "--method", "sft", "--dry_run").code == 0, "another folder"

    threading.Timer(1.0, lock.release).start()
    waited = fit(*arguments, "--method", "zero_shot", "--wait")
    assert waited.code == 0, waited.err
    assert "waiting for it to end" in waited.out
    assert not lock.is_held()


def test_rationales_are_not_put_into_a_run_that_is_going(tmp_path, capsys):
    clips = write_clips(tmp_path / "clips", {"train": (1, 1), "val": (1, 1), "test": (1, 1)})
    config = write_experiment(tmp_path / "two.yaml", clips, "builtin/tiny")
    rationales = tmp_path / "r.jsonl"
    videos = [path.relative_to(clips).as_posix() for path in sorted((clips / "train").rglob("0.mp4"))]
    turns = [{"role": "user", "content": "<video>\nwhy?"}, {"role": "assistant", "content": "It goes there."}]
    rows = [{"video": video, "label": video.split("/")[1], "messages": turns} for video in videos]
    rationales.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = (
        "--run_root",
        str(tmp_path / "runs"),
        "--data.cache_dir",
        str(tmp_path / "cache"),
    )
    lock = RunLock(tmp_path / "runs/two/rbft/seed0")
    assert lock.acquire()
    assert main(["rationales", "import", str(rationales), "--to", str(config), *flags]) == 1
    assert "is in use by another process" in capsys.readouterr().err
    lock.release()
    assert main(["rationales", "import", str(rationales), "--to", str(config), *flags]) == 0
