"""The command line of a command: argparse, with wrong usage as an error like any other."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rbft.errors import ConfigError


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
