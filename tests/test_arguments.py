"""What a machine refuses is one line with the place and what to do, and an exit code that says whether to try again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from rbft.__main__ import main
from rbft.arguments import Parser, exit_code, warn_in_words
from rbft.commands import COMMANDS
from rbft.errors import RBFTWarning, StorageError


def raising(error: BaseException):
    def command() -> int:
        raise error

    return command


def denied(number: int, path: str | None = "runs/x") -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (denied(errno.EACCES), 1, "rbft: runs/x: Permission denied. Allow it, or name another place: --run_root"),
        (denied(errno.EPERM), 1, "--data.cache_dir"),
        (denied(errno.EROFS), 1, "rbft: runs/x: Read-only file system."),
        (denied(errno.EMFILE), 1, "rbft: runs/x: Too many open files. Allow more (`ulimit -n 4096`)"),
        (denied(errno.EMFILE, None), 1, "Too many open files"),
        (denied(errno.ENOSPC), 1, "rbft: runs/x: no space left on the disk"),
        (StorageError("full", errno.ENOSPC), 1, "rbft: full"),
        (UnicodeEncodeError("ascii", "fälle", 1, 2, "no"), 1, "rbft: 'ä' cannot be written in the encoding"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            75,
            "process (7) is killed by signal",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), 75, "(7, 8) exited unexpectedly: out of"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"),
            75,
            "/dev/shm is small",
        ),
    ],
)
def test_the_machine_s_troubles_are_a_line(error, code, words, capsys):
    assert exit_code(raising(error)) == code
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no such file", "x"), RuntimeError("a fault"), ValueError()])
def test_what_may_be_a_fault_of_ours_is_not_put_into_words(error):
    with pytest.raises(type(error)):
        exit_code(raising(error))


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "--version", "completion bash"])
def test_a_reader_that_is_gone_is_no_fault(command, unbuffered):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rbft", *command.split()],
            stdout=write,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_broken_pipe_to_somebody_else_is_told(capsys):
    with pytest.raises(BrokenPipeError):
        exit_code(raising(BrokenPipeError(errno.EPIPE, "broken pipe")))


def test_paths_of_a_command_line_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = Parser()
    parser.add_argument("--to", type=Path)
    parser.add_subparsers(parser_class=Parser).add_parser("inner").add_argument("file", type=Path)
    parsed = parser.parse_args(["--to=~/a", "inner", "~.mp4"])
    assert (parsed.to, parsed.file) == (tmp_path / "a", Path("~.mp4"))


def test_a_warning_is_a_sentence_and_no_line_of_code(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,begin_s,end_s\na.mp4,a,0,1\nb.mp4,b,0,1\n")
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    done = subprocess.run(
        [sys.executable, "-m", "rbft", "check", str(tmp_path), "--run_root", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    first, *_ = done.stderr.splitlines()
    assert first.startswith(f"warning: {tmp_path / 'labels.csv'}, row 1: whole videos are taken")
    assert "UserWarning" not in done.stderr and "warnings.warn" not in done.stderr


def test_warnings_of_rbft_are_shown_once_and_others_as_ever(capsys):
    with warnings.catch_warnings(record=True) as others:
        warn_in_words()
        for _ in range(2):
            warnings.showwarning(RBFTWarning("a name \x1b[2J"), RBFTWarning, __file__, 7)
            warnings.showwarning(UserWarning("careful"), UserWarning, __file__, 7)
    assert capsys.readouterr().err == r"warning: a name \x1b[2J" + "\n"
    assert [(str(other.message), other.category) for other in others] == [("careful", UserWarning)] * 2


@pytest.mark.parametrize("name", COMMANDS)
def test_only_a_command_that_goes_on_says_so_where_it_is_stopped(name, monkeypatch, capsys):
    def stopped(args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{COMMANDS[name]}.run", stopped)
    assert main([name]) == 130
    more = "; finished stages are kept. The same command continues" if name in ("fit", "sweep", "compare") else ""
    assert capsys.readouterr().err == f"rbft: interrupted{more}.\n"
