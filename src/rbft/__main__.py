"""The command `rbft`: each of its commands is a file of `rbft.commands`, imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rbft import __version__
from rbft.arguments import exit_code, say_error, warn_in_words
from rbft.commands import COMMANDS, CONTINUING
from rbft.deferred_imports import defer_heavy_packages


def help_text() -> str:
    """What `rbft --help` prints: the commands with what their parsers say of them."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(
        f"  {name:<{width}}  {importlib.import_module(module).parser().description}"
        for name, module in COMMANDS.items()
    )
    return (
        f"rbft {__version__} - a classifier of your videos that explains itself,\n"
        "from a few labelled clips and a vision-language model\n\n"
        f"usage: rbft COMMAND ...\n\ncommands:\n{rows}\n\n"
        "options:\n  --help, --version\n\n"
        "rbft COMMAND --help says more. Start with: rbft fit CLIPS\n"
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad usage, 128 + signal where interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    return exit_code(lambda: _call(words), continues=bool(words) and words[0] in CONTINUING)


def _call(args: Sequence[str]) -> int:
    command = args[0] if args else "--help"
    if command in ("--help", "-h", "help"):
        print(help_text(), end="")
        return 0
    if command == "--version":
        print(f"rbft {__version__}")
        return 0
    if command not in COMMANDS:
        say_error(f"unknown command {command!r}; {_meant(args)} `rbft --help` lists the commands.")
        return 2
    defer_heavy_packages()
    warn_in_words()
    return int(importlib.import_module(COMMANDS[command]).run(args[1:]))


def _meant(args: Sequence[str]) -> str:
    """What a person may have meant by a command that is none."""
    first = args[0]
    if first.startswith("builtin:") or first.endswith((".yaml", ".yml")) or Path(first).exists():
        return f"did you mean `rbft fit {shlex.join(args)}`?"
    close = difflib.get_close_matches(first, COMMANDS, n=1)
    return f"did you mean `rbft {shlex.join([*close, *args[1:]])}`?" if close else "there is no such command."


def console() -> None:
    """The installed command."""
    _isolate_children()
    sys.exit(main())


def _isolate_children() -> None:
    """Have processes that this one starts find no Python files in the current folder, unless this one does.

    Decoding processes, ranks and the like start with `python -c` or `-m`, which would put that folder first.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # removed meanwhile, so that nothing lies in it
        return
    if here not in sys.path and "" not in sys.path:
        os.environ["PYTHONSAFEPATH"] = "1"


if __name__ == "__main__":
    console()
