"""What a run was made with, in a file that another person can read."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

import rbft
from rbft.runs import environment
from rbft.runs.environment import describe_environment


def test_versions_and_hardware_are_named():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["rbft"] == rbft.__version__
    assert found["packages"]["torch"] == version("torch")
    assert {"transformers", "lightning", "peft", "av"} <= set(found["packages"])
    assert found["cpu_cores"] >= 1
    assert (found["cuda"] is None) == (found["gpus"] == [])


def git(folder: Path, *args: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *names, *args], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_revision_says_when_files_were_changed(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    revision = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert environment._commit(tmp_path) == revision
    (tmp_path / "a").write_text("2")
    assert environment._commit(tmp_path) == f"{revision}-dirty"


def test_no_checkout_and_no_git_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment._commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert environment._commit(Path(rbft.__file__).parent) is None
