"""Every script of the benchmarks starts by the command that the documents give, from the repository's root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path.name
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if f"python benchmarks/{path.name}" in (ROOT / "docs" / "benchmarks.md").read_text() + path.read_text()
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts(name: str) -> None:
    # not what a runner of tests has put on the path
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
