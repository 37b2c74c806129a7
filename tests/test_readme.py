"""The README's commands are ones that exist and run, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rbft.__main__ import main
from rbft.experiment import METHODS, read_experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(<!-- needs data -->\n)?```sh\n(.*?)```", re.DOTALL)
COMMANDS = [(line, bool(mark)) for mark, block in BLOCK.findall(README) for line in block.splitlines() if line.strip()]


def test_there_are_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(("command", "needs_data"), COMMANDS)
def test_command_runs(command: str, needs_data: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {words[1]}"
        return
    assert words[0] == "rbft"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    if words[1] == "rationales":
        file = tmp_path / words[3]
        file.parent.mkdir(parents=True)
        file.write_text((ROOT / "tests" / "support" / "rationales.jsonl").read_text())
        assert main(words[1:]) == 0
    elif words[1] == "predict":
        assert main(words[1:]) == 1  # understood, but there are no such videos here
        assert "does not exist" in capsys.readouterr().err
    elif words[1] == "sweep":
        assert main(words[1:]) == 0
    elif needs_data:
        assert read_experiment(words[2:]).stages
    else:
        small = ["--data.format.train_per_class", "4", "--data.format.test_per_class", "1"]
        assert main([*words[1:], *small, "--dry_run"]) == 0


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_table_of_methods_is_the_code():
    for name, stages in METHODS.items():
        assert re.search(rf"^\| `{name}`[^|]*\| {', '.join(stages)} \|$", README, re.MULTILINE), name


def test_table_of_experiments_is_complete():
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert f"| `{path.name}` |" in README
