"""As many open files as decoding processes need, or a refusal before they wait for each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rbft.data.setting_checks import require_open_files

ASK = """
import resource, sys
soft, hard, workers = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from rbft.data.setting_checks import require_open_files
from rbft.errors import ConfigError
try:
    require_open_files(workers)
except ConfigError as error:
    print(error)
else:
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "workers", "said"),
    [
        (100, 4096, 2, "256"),
        (1024, 4096, 2, "1024"),
        (100, 100, 0, "100"),
        (100, 200, 2, "data.num_workers: 2 decoding processes need up to 256 open files, and the system allows 200."),
    ],
)
def test_open_files(soft, hard, workers, said):
    command = [sys.executable, "-c", ASK, str(soft), str(hard), str(workers)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.startswith(said)


def test_a_system_without_such_a_limit_is_asked_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    require_open_files(10**6)
