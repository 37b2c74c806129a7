"""The Dockerfile, as far as it can be tried without Docker: its files, extras, Python and commands are there."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from rbft.commands import COMMANDS
from rbft.commands.completion import keys, read_commands

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def copied() -> list[str]:
    return [source for line in instructions("COPY") for source in line.split()[:-1]]


def test_what_is_copied_is_tracked_and_not_left_out():
    allowed = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    assert sorted(copied()) == sorted(allowed), "all else is left out, so that no run or video gets into an image"
    for name in copied():
        tracked = subprocess.run(["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True)
        assert tracked.stdout, name


def test_what_the_build_of_the_package_reads_is_copied():
    needed = {"setup.cfg", "pyproject.toml", "src", SETUP["metadata"]["license_files"]}
    needed.add(SETUP["metadata"]["long_description"].removeprefix("file: "))
    needed |= set(re.findall(r"-c (\S+)", TEXT))
    assert needed <= set(copied()) and "constraints.txt" in needed


def test_python_and_extras_are_ones_of_the_package():
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", TEXT, re.MULTILINE)
    assert f"Programming Language :: Python :: {python}" in SETUP["metadata"]["classifiers"]
    (extras,) = re.findall(r"'\.\[(.*?)\]'", TEXT)
    assert set(extras.split(",")) <= set(SETUP["options.extras_require"])


COMMANDS_SHOWN = [
    *re.findall(r"rbft(?::cuda)? ((?:fit|serve|doctor|predict) .*?)(?: >|$)", TEXT, re.MULTILINE),
    *re.findall(r"&& rbft (\S+) &&", TEXT),
]


@pytest.mark.parametrize("command", COMMANDS_SHOWN)
def test_its_commands_and_flags_are_there(command: str):
    words = shlex.split(command)
    if words[0] == "--version":
        return
    assert words[0] in COMMANDS
    known = {flag for entry in read_commands() if entry.words[0] == words[0] for flag in entry.flags} | set(keys())
    assert {word for word in words if word.startswith("--")} <= known


def test_there_are_commands():
    assert len(COMMANDS_SHOWN) >= 4
    assert instructions("ENTRYPOINT") == ['["rbft"]']
    assert instructions("EXPOSE") == ["8420"], "the default of rbft serve"
