"""The command line of a command: argparse with wrong usage as an error like any other, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from rbft.errors import ConfigError, Interrupted, RBFTError


class Parser(argparse.ArgumentParser):
    """Raises what argparse would print and exit with.

    Attributes:
        advice: A sentence on what to do, behind every message.
    """

    advice = ""

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


def exit_code(command: Callable[[], int]) -> int:
    """Carry out a command and turn what it raises into a message and an exit code.

    Args:
        command: what is called.

    Returns:
        What the command returned; 1 failed, 2 bad usage, 128 + signal where it was interrupted.
    """
    try:
        return command()
    except Interrupted as error:
        from rbft.ranks import first_rank

        # all processes of a run stop together: one speaks, and none that looks failed makes a launcher kill the others
        if not first_rank():
            return 0
        print(f"rbft: {error}", file=sys.stderr)
        return error.exit_code
    except RBFTError as error:
        print(f"rbft: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        from rbft.files import NO_ROOM

        # other disks' troubles are bugs or told where they happen; a full one can strike whatever is written
        if error.errno not in NO_ROOM:
            raise
        where = error.filename or "what the run leaves"
        print(f"rbft: {where}: {NO_ROOM[error.errno]}. Make room and give the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rbft: interrupted; finished stages are kept. The same command continues.", file=sys.stderr)
        return 130
