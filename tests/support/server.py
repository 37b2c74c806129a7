"""`rbft serve` as a process of its own, met by real requests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.support.runs import REPOSITORY

# `rbft serve` whose model takes its time and says that it has begun, so that a test can meet it in the middle
SLOWLY = """
import sys, time
from pathlib import Path
from rbft.serve.model import ServedModel
predict = ServedModel.predict
def slow(self, *args, **settings):
    Path({marker!r}).touch()
    time.sleep({seconds})
    return predict(self, *args, **settings)
ServedModel.predict = slow
from rbft.__main__ import console
console()
"""


@dataclass
class Server:
    """A server that listens.

    Args:
        process: Its process.
        url: Where it listens.
        log: What it printed until then.
        temporary: Where it keeps what it is sent.
    """

    process: subprocess.Popen[str]
    url: str
    log: str
    temporary: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=240)

    def predict(self, content: bytes, name: str = "clip.mp4", **fields: str) -> httpx.Response:
        """Send a video."""
        return self.client.post("/api/predict", files={"video": (name, content)}, data=fields)

    def left(self) -> list[Path]:
        """Files of requests that are still there."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to stop; its exit code and what else it printed."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=120)
        return self.process.returncode, rest


@contextmanager
def serving(run: Path, *flags: str, driver: str | None = None) -> Iterator[Server]:
    """A server of a run on a free port; `driver` is a program to start it with."""
    with served("serve", "--run", str(run), *flags, driver=driver) as server:
        yield server


@contextmanager
def served(*words: str, driver: str | None = None, command: Path | None = None) -> Iterator[Server]:
    """A command that serves a page, on a free port.

    Args:
        words: the command line after `rbft`.
        driver: program of Python to start it with.
        command: `rbft` of another environment, which sees nothing of this one's code.
    """
    start = [str(command or Path(sys.executable).with_name("rbft"))]
    if driver is not None:
        start = [sys.executable, "-c", driver]
    with tempfile.TemporaryDirectory(prefix="rbft-test-") as temporary:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": temporary, "PYTHONUNBUFFERED": "1"}
        if command is not None:
            del environment["PYTHONPATH"]
        process = subprocess.Popen(
            [*start, *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        try:
            yield _wait_for(process, Path(temporary))
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _wait_for(process: subprocess.Popen[str], temporary: Path) -> Server:
    """Read what it prints until it listens."""
    log, end = "", time.monotonic() + 240
    assert process.stdout is not None
    while time.monotonic() < end:
        line = process.stdout.readline()
        log += line
        if found := re.search(r"open (http://\S+)", line):
            server = Server(process, found.group(1), log, temporary)
            while True:  # the address is told right before the first request is taken
                try:
                    server.client.get("/api/health")
                    return server
                except httpx.ConnectError:
                    assert time.monotonic() < end and process.poll() is None, log
                    time.sleep(0.05)
        assert line or process.poll() is None, log
    raise AssertionError(f"it does not listen: {log}")
