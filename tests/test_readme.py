"""The README's commands are ones that exist and run, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.starter.test_layout import fill
from tests.support.documents import adapted, blocks, write_experiments
from tests.support.runs import REPOSITORY

from rbft import commands
from rbft.__main__ import main
from rbft.experiment import METHODS, read_experiment
from rbft.starter.source import experiment_arguments

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    (shlex.join(words), block.excused)
    for block in blocks("README.md")
    if block.language == "sh"
    for words in block.commands
]


def test_there_are_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(("command", "excused"), COMMANDS)
def test_command_is_understood(command: str, excused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), f"no target {words[1]}"
        return
    if words[0] in ("pip", "curl", "python"):
        return
    assert words[0] == "rbft"
    monkeypatch.chdir(tmp_path)
    write_experiments(tmp_path)
    if excused:
        fill(tmp_path / "clips", "fall/1.mp4", "fall/2.mp4", "other/1.mp4", "other/2.mp4")
        assert words[1] not in ("fit", "check") or read_experiment(experiment_arguments(words[2:])[0]).stages
    elif words[1] in ("fit", "check", "sweep"):
        assert main(adapted(words)[1:]) == 0
    else:
        # needs a finished run: tests/docs has one
        assert words[1] in set(commands.COMMANDS) | {"--version", "--help"}


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / target).is_file(), target


def test_table_of_methods_is_the_code():
    for name, stages in METHODS.items():
        assert re.search(rf"^\| `{name}`[^|]*\| {', '.join(stages)} \|$", README, re.MULTILINE), name


def test_table_of_experiments_is_complete():
    for path in (REPOSITORY / "experiments").glob("*.yaml"):
        assert f"| `{path.name}` |" in README
