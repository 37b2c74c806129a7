"""The command line of a command: argparse with wrong usage as an error like any other, and exit codes."""

from __future__ import annotations

import argparse
import errno
import os
import re
import select
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from rbft.errors import ConfigError, Interrupted, PassingError, RBFTError, RBFTWarning
from rbft.files import expanded


class Parser(argparse.ArgumentParser):
    """Raises what argparse would print and exit with; paths may begin with `~`, which no shell expands after `=`.

    Attributes:
        advice: A sentence on what to do, after every message.
    """

    advice = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, expanded)

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            ConfigError: Names the command and what is wrong.
        """
        raise ConfigError(f"{self.prog}: {message.rstrip('.')}.{self.advice and ' ' + self.advice}")


class PlainEpilog(argparse.HelpFormatter):
    """Help whose epilog keeps its lines; descriptions and arguments are filled as ever."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def say_error(message: str) -> None:
    """Print a message to standard error; on a terminal, lines are broken between words."""
    say(f"rbft: {message}", sys.stderr)


def say(text: str, stream: TextIO) -> None:
    """Print text; on a terminal, lines are broken between words."""
    if stream.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(
            textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            for line in text.split("\n")
        )
    print(text, file=stream, flush=True)


def warn_in_words() -> None:
    """Have each warning of this package printed once, as a sentence without the line of code that gives it.

    Those of other packages, which may be about their code or ours, are printed as ever.
    """
    warnings.showwarning = _show_warning


_as_ever = warnings.showwarning
_shown: set[str] = set()


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category is not RBFTWarning:
        _as_ever(message, category, filename, lineno, file, line)
    elif (text := f"warning: {message}") not in _shown:
        _shown.add(text)
        say(text, file or sys.stderr)


def exit_code(command: Callable[[], int], *, continues: bool = True) -> int:
    """Carry out a command and turn what it raises into a message and an exit code.

    Args:
        command: what is called.
        continues: whether the same command goes on where it was stopped.

    Returns:
        What the command returned; 1 failed, 2 bad usage, 128 + signal where it was interrupted.
    """
    try:
        code = command()
        # here, where a reader that is gone is no surprise
        print(end="", flush=True)
        return code
    except Interrupted as error:
        from rbft.ranks import first_rank

        # all processes of a run stop together: one speaks, and none that looks failed makes a launcher kill the others
        if not first_rank():
            return 0
        say_error(str(error))
        return error.exit_code
    except RBFTError as error:
        say_error(str(error))
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 1
        # other disks' troubles are bugs or reported where they happen; these can strike whatever is opened
        if (trouble := _system_trouble(error)) is None:
            raise
        say_error(trouble)
        return 1
    except UnicodeEncodeError as error:
        # standard error writes out what its encoding lacks
        say_error(
            f"{error.object[error.start : error.end]!r} cannot be written in the encoding of this system "
            f"({error.encoding}). Set the environment variable PYTHONUTF8=1, or a UTF-8 locale, and give the same "
            "command again."
        )
        return 1
    except RuntimeError as error:
        if (killed := _explain_killed(error)) is None:
            raise
        say_error(str(killed))
        return killed.exit_code
    except KeyboardInterrupt:
        kept = "; finished stages are kept. The same command continues" if continues else ""
        say_error(f"interrupted{kept}.")
        return 130


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more, as behind `| head`; nothing else can be printed then."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # none, no file, or a closed one
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # or Python would report what is left in its buffer as it ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _system_trouble(error: OSError) -> str | None:
    """What is wrong with this machine and what to do; None where it may be anything."""
    from rbft.files import NO_ROOM

    where = error.filename or "what the run leaves"
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return (
            "there is no folder for temporary files: nothing can be written in any of "
            f"{re.sub(r'^.*? in ', '', str(error.strerror))}. Make room there, or set the environment variable TMPDIR "
            "to a folder that can be written."
        )
    if error.errno in NO_ROOM:
        return f"{where}: {NO_ROOM[error.errno]}. Make room and give the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{where}: {error.strerror}. Allow it, or name another place: --run_root for what runs leave, "
            "--data.cache_dir for kept clips."
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"{where}: {error.strerror}. Allow more (`ulimit -n 4096`) or lower data.num_workers, and give the same "
            "command again."
        )
    return None


def _explain_killed(error: RuntimeError) -> PassingError | None:
    """What torch says when a decoding process ended, in words; None for any other error."""
    match = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*?)(?:\.|$)", str(error))
    if match is None:
        return None
    return PassingError(
        f"a decoding process ({match[1]}) {match[2]}: out of memory, mostly. Lower data.num_workers or "
        "data.batch_size; where /dev/shm is small, as in containers, make it larger. The same command continues."
    )
