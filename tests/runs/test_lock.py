"""One process at a time in a run folder: who is refused, who waits, and what a process that is gone leaves behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rbft.errors import StageError
from rbft.runs import lock as locks
from rbft.runs.lock import INHERITED, Holder, RunLock, holding_run, is_alive

HOLD = """
import sys, time
from pathlib import Path
from rbft.runs.lock import holding_run
with holding_run(Path(sys.argv[1]), wait=False, say=print):
    {more}
    print("held", flush=True)
    sys.stdin.read()
"""
# as a decoding process does that outlives the run for a moment
CHILD = "import os; child = os.fork()\n    if not child: time.sleep(4.0); os._exit(0)"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that holds a run folder until its input ends."""
    started = []

    def begin(folder: Path, more: str = "pass") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(more=more), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        with process:
            pass


def take(folder: Path, *, wait: bool = False) -> list[str]:
    said: list[str] = []
    with holding_run(folder, wait=wait, say=said.append):
        pass
    return said


def test_the_second_is_told_who_the_first_is(tmp_path, start):
    process = start(tmp_path / "seed0")
    with pytest.raises(StageError, match=rf"process {process.pid} on {socket.gethostname()}.*--wait"):
        take(tmp_path / "seed0")
    assert take(tmp_path / "seed1") == []
    process.terminate()
    process.wait()
    assert take(tmp_path / "seed0") == []


def test_the_second_waits_where_it_is_asked_to(tmp_path, start):
    process = start(tmp_path / "seed0")
    threading.Timer(0.5, process.terminate).start()
    begin = time.monotonic()
    (said,) = take(tmp_path / "seed0", wait=True)
    assert time.monotonic() - begin > 0.4
    assert f"process {process.pid}" in said


def test_a_killed_process_holds_nothing(tmp_path, start):
    process = start(tmp_path / "seed0")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert take(tmp_path / "seed0") == []


def test_what_a_killed_process_had_started_is_waited_for(tmp_path, start):
    process = start(tmp_path / "seed0", CHILD)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (said,) = take(tmp_path / "seed0")
    assert "has ended; waiting for what it had started" in said


def test_of_another_machine_it_is_said_what_to_remove(tmp_path, start):
    folder = tmp_path / "seed0"
    start(folder)
    lock = RunLock(folder)
    lock.path.write_text(json.dumps({"host": "far", "worker": 1, "pid": 7}))
    with pytest.raises(StageError, match=r"process 7 on far.*gone for good, remove .*\.seed0\.lock"):
        take(folder)


def test_a_folder_that_may_not_be_written_to_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        take(tmp_path)
    assert take(tmp_path / "new") == [], "what is not there yet is made"


def test_what_never_began_leaves_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "runs/a/b/seed0", tmp_path / "mine/b/seed0"):
        assert take(folder) == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with holding_run(tmp_path / "runs/seed0", wait=False, say=print):
        (tmp_path / "runs/seed0").mkdir()
        assert (tmp_path / "runs/.seed0.lock").is_file()
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs/seed0"]


def test_a_lock_that_was_removed_is_nobody_s(tmp_path):
    folder = tmp_path / "seed0"
    first, second = RunLock(folder), RunLock(folder)
    assert first.acquire()
    first.remove()
    assert not first.is_held()
    assert second.acquire(), "in a file of its own"
    assert not RunLock(folder).acquire()
    first.release()
    assert second.is_held()
    second.release()


def test_a_file_system_without_locks_goes_by_the_process_that_is_named(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = tmp_path / "seed0"
    with holding_run(folder, wait=False, say=print):
        with pytest.raises(StageError, match=rf"process {os.getpid()} "):
            take(folder)
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        RunLock(folder).path.write_text(
            json.dumps({"host": socket.gethostname(), "worker": 1, "pid": int(ended.stdout)})
        )
        assert take(folder) == []


def test_a_run_that_a_sweep_started_is_in_its_worker_s_hands(tmp_path, monkeypatch):
    folder = tmp_path / "seed0"
    worker = RunLock(folder)
    assert worker.acquire()
    worker.note(Holder("here", 1, 2, 0, "session"))
    monkeypatch.setenv(INHERITED, str(worker.descriptor))
    assert take(folder) == []
    assert RunLock(folder).holder() == Holder("here", 1, 2, 0, "session")
    assert RunLock(folder).is_held()
    with pytest.raises(StageError):
        monkeypatch.setenv(INHERITED, "0")
        take(folder)
    worker.release()
    assert locks.is_alive(os.getpid())


def test_a_process_that_has_ended_and_was_not_noticed_is_gone():
    """As in containers whose first process waits for no other."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert is_alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid)
        assert Holder(socket.gethostname(), process.pid, process.pid).gone
        assert not Holder("far", process.pid, process.pid).gone
    assert not is_alive(process.pid)
