"""The command as a process: it tells where it listens, warns, and stops in peace."""

from __future__ import annotations

import importlib
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.support.runs import Run
from tests.support.server import SLOWLY, Server, serving

from rbft.__main__ import main

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture
def clip(clips: Path) -> bytes:
    return next((clips / "test").rglob("*.mp4")).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_finishes_the_video_in_work_and_no_other(
    finished: Run, clip: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    began = tmp_path / "began"
    with serving(finished.folder, driver=SLOWLY.format(marker=str(began), seconds=2)) as server:
        answers: dict[str, int] = {}

        def ask(name: str) -> None:
            answers[name] = server.predict(clip).status_code

        asking = [threading.Thread(target=ask, args=(name,)) for name in ("in work", "waiting")]
        asking[0].start()
        while not began.exists():
            time.sleep(0.01)
        asking[1].start()
        while server.client.get("/api/health").json()["in_work_or_waiting"] < 2:
            time.sleep(0.01)
        code, said = server.stop(number)
        for thread in asking:
            thread.join(30)
        assert answers == {"in work": 200, "waiting": 503}
        assert (code, said.count("\n")) == (128 + number, 1), said
        assert "the video in work was answered" in said
        assert list(server.temporary.iterdir()) == [], "its folder is gone"


def test_slow_senders_hold_nobody_up_and_no_stop(finished: Run, clip: bytes) -> None:
    """Whoever sends a byte now and then takes no place in the line, and is told when the server stops."""
    head = (
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n--B\r\n"
    )
    with serving(finished.folder, "--queue", "1") as server:
        port = int(server.url.rsplit(":", 1)[1])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for connection in slow:
            connection.sendall(head.encode())
        answer = server.predict(clip)
        assert answer.status_code == 200, answer.text
        start = time.monotonic()
        code, said = server.stop()
        assert (code, time.monotonic() - start < 25) == (143, True)
        assert [connection.recv(100).startswith(b"HTTP/1.1 503") for connection in slow] == [True] * 4
        assert said.endswith("rbft: stopped.\n"), "no video was in work"


@pytest.mark.slow
def test_it_answers_and_warns_when_others_can_reach_it(finished: Run, clip: bytes) -> None:
    with serving(finished.folder, "--host", "0.0.0.0") as server:
        assert "there is no authentication" in server.log
        port = server.url.rsplit(":", 1)[1]
        answer = server.predict(clip, rationale="1")
        assert answer.status_code == 200 and answer.json()["rationale"] is not None
        for host, status in ((f"{socket.gethostname()}:{port}", 200), ("evil.example", 403)):
            assert server.client.get("/api/run", headers={"host": host}).status_code == status
        assert server.left() == []
        code, _ = server.stop()
        assert code == 143


def test_by_default_it_is_this_machines_alone(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert "authentication" not in server.log
    assert server.client.get("/api/run").json()["metrics"]["test/num_videos"] == 5


def test_wrong_use_is_one_line(finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    run = ["serve", "--run", str(finished.folder)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            (["serve"], 2, "--run"),
            ([*run, "--max-mb", "0"], 2, "--max-mb 0: must be above 0"),
            ([*run, "--port", "70000"], 2, "--port"),
            ([*run, "--port", port], 1, f"cannot listen on 127.0.0.1:{port} (Address already in use)"),
            ([*run, "--host", "no.such.host.invalid"], 1, "cannot listen on no.such.host.invalid"),
            (["serve", "--run", str(tmp_path), "--port", "0"], 1, "no run folder"),
            ([*run, "--port", "0", "--data.num_frames", "3"], 2, "--data.num_frames"),
        ]
        for args, code, message in cases:
            assert main(args) == code, args
            err = capsys.readouterr().err
            assert message in err and err.count("\n") == 1, err

    real = importlib.import_module

    def half(name: str, *args: object) -> object:
        if name == "fastapi":
            raise ImportError("No module named 'starlette'")
        return real(name, *args)

    with monkeypatch.context() as patch:
        patch.setattr("rbft.commands.serve.importlib.import_module", half)
        assert main(run) == 2
    err = capsys.readouterr().err
    assert "fastapi is installed, but damaged (No module named 'starlette'" in err and err.count("\n") == 1
    find = "rbft.commands.serve.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name: None if name == "uvicorn" else True)
    assert main(run) == 2
    assert "needs uvicorn; install it with pip install 'rbft[serve]'" in capsys.readouterr().err


def test_no_folder_for_temporary_files_is_told_in_a_line(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a container's file system may not be written."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    assert main(["serve", "--run", str(finished.folder), "--port", "0"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("rbft: there is no folder for temporary files: nothing can be written in any of ['")
    assert str(tmp_path / "none") in said.err and "TMPDIR" in said.err and said.err.count("\n") == 1
