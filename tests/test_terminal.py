"""What commands print: plain lines into pipes, no colours where NO_COLOR asks for none."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.documents import write_experiments

from rbft import __version__
from rbft.__main__ import help_text
from rbft.arguments import say_error
from rbft.terminal import make_console

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|38|48)(?:;\d+)*m")
SMALL = ("--data.format.train_per_class", "4", "--data.format.test_per_class", "1", "--data.format.val_per_class", "2")
CONFIG = ("--config", "experiments/quickstart.yaml")
COMMANDS = {
    "doctor": ["doctor"],
    "check": ["check", *CONFIG, *SMALL],
    "fit": ["fit", *CONFIG, *SMALL, "--method", "sft", "--data.shots", "1", "--trainer.max_epochs", "1"],
    "sweep": ["sweep", "--config", "experiments/sweeps/quickstart.yaml", "--dry_run"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_experiments(tmp_path)
    return tmp_path


def in_a_pipe(folder: Path, *words: str, **environment: str) -> str:
    command = [sys.executable, "-m", "rbft", *words]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def in_a_terminal(folder: Path, *words: str, **environment: str) -> str:
    """What a person at a terminal of 100 columns is sent."""
    ours, theirs = pty.openpty()
    settings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    settings |= {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    process = subprocess.Popen(
        [sys.executable, "-m", "rbft", *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=settings
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        sent += part
    os.close(ours)
    assert process.wait(60) == 0, sent.decode()
    return sent.decode()


def test_doctor_is_coloured_for_a_person_and_plain_otherwise(folder: Path) -> None:
    """The one command that uses colours; bars and bold text are told apart below."""
    assert COLOUR.search(in_a_terminal(folder, "doctor"))
    assert not COLOUR.search(in_a_terminal(folder, "doctor", NO_COLOR="1"))
    assert "\x1b" not in in_a_terminal(folder, "doctor", TERM="dumb")
    assert "\x1b" not in in_a_pipe(folder, "doctor")


def too_wide(sent: str, width: int) -> list[str]:
    """Lines of more than a word that are wider than the terminal; what a bar drew over is left out."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    lines = [line.rstrip("\r").split("\r")[-1] for line in text.split("\n")]
    return [line for line in lines if len(line) > width and len(line.split()) > 1]


def test_lines_are_broken_between_words_and_no_word_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console = make_console(alone=True)
    console._force_terminal = True
    path = "/a/very/long/path/that/is/wider/than/this/terminal/is.mp4"
    with console.capture() as captured:
        console.print(f"  note: [bold]these words[/] are more than fit on a line, in {path} and behind it")
        console.print("short")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", captured.get())
    assert plain.splitlines() == [
        "  note: these words are more than fit on",
        "    a line, in",
        f"    {path}",
        "    and behind it",
        "short",
    ]
    console._force_terminal = False
    with console.capture() as captured:
        console.print(f"  note: these words are more than fit on a line, in {path} and behind it")
    assert len(captured.get().splitlines()) == 1, "a pipe gets whole lines"


@pytest.mark.parametrize("command", ["doctor", "sweep"])
def test_terminals_of_80_columns_are_enough(command: str, folder: Path) -> None:
    assert too_wide(in_a_terminal(folder, *COMMANDS[command], COLUMNS="80"), 80) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "fit"])
def test_terminals_of_80_columns_are_enough_for_runs(command: str, folder: Path) -> None:
    assert too_wide(in_a_terminal(folder, *COMMANDS[command], COLUMNS="80"), 80) == []


def test_errors_are_broken_between_words(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    message = "a message of many words that says which key of which file is wrong, and what to do about it, at length"
    say_error(message)
    assert capsys.readouterr().err == f"rbft: {message}\n"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    say_error(message)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(len(line) <= 80 for line in lines) and lines[1].startswith("  ")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "fit", "sweep"])
def test_pipes_get_plain_lines_and_no_color_is_kept(command: str, folder: Path) -> None:
    assert not COLOUR.search(in_a_terminal(folder, *COMMANDS[command], NO_COLOR="1"))
    plain = in_a_pipe(folder, *COMMANDS[command], *(["--restart"] if command == "fit" else []))
    assert "\x1b" not in plain and "\r" not in plain
    assert len(plain.splitlines()) >= 3


def test_version_and_help(folder: Path) -> None:
    assert in_a_pipe(folder, "--version") == f"rbft {__version__}\n"
    assert in_a_pipe(folder, "--help") == help_text()
    assert max(map(len, help_text().splitlines())) <= 80
