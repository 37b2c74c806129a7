"""Hours of use in short: many videos one after the other and at once, bad ones among them, in the same memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.support.runs import Run
from tests.support.server import Server, serving

pytest_plugins = ["tests.support.run_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WARM, SEQUENTIAL, PARALLEL, CLIENTS = 40, 200, 80, 8
# what allocators keep back varies by a few MB; a clip kept by each request would be 200 times its 48 kB and more
GROWTH_MB = 24


def memory_mb(server: Server) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 1e6


def test_memory_stays_and_every_request_is_answered(finished: Run, clips: Path, tmp_path: Path) -> None:
    good = [path.read_bytes() for path in sorted((clips / "test").rglob("*.mp4"))]
    cut = good[0][: len(good[0]) // 2]
    bad = [b"", b"no video at all", cut, b"\0" * 5000]
    videos = [
        bad[number // 5 % len(bad)] if number % 5 == 4 else good[number % len(good)] for number in range(SEQUENTIAL)
    ]
    with serving(finished.folder, "--queue", str(CLIENTS)) as server:

        def ask(number: int) -> int:
            # writing takes a hundred times as long as scoring
            answer = server.predict(videos[number], rationale=str(int(number % 20 == 0)), frames="1")
            assert answer.json().get("predicted") or answer.json()["detail"]
            return answer.status_code

        expected = [422 if video in bad else 200 for video in videos]
        first = server.predict(good[0]).json()
        assert [ask(number) for number in range(WARM)] == expected[:WARM]
        before, handles = memory_mb(server), psutil.Process(server.process.pid).num_fds()
        assert [ask(number) for number in range(SEQUENTIAL)] == expected
        with ThreadPoolExecutor(CLIENTS) as clients:
            assert list(clients.map(ask, range(PARALLEL))) == expected[:PARALLEL]
        after = memory_mb(server)
        print(f"memory: {before:.0f} MB before, {after:.0f} MB after {SEQUENTIAL + PARALLEL} requests")
        assert after - before < GROWTH_MB
        assert server.left() == []
        # connections that are kept open aside
        assert psutil.Process(server.process.pid).num_fds() <= handles + CLIENTS
        again = server.predict(good[0]).json()
        assert again["probabilities"] == first["probabilities"]
        code, _ = server.stop()
        assert code == 143
