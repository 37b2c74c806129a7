"""`rbft init`: the experiment file of some clips, without running anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rbft.arguments import Parser, say
from rbft.errors import ConfigError


def parser() -> Parser:
    """The command's flags."""
    from rbft.starter.source import add_arguments

    made = Parser(
        prog="rbft init",
        allow_abbrev=False,
        description="Print an experiment file for your clips, to change and to run.",
        epilog="For example: rbft init clips --about 'home camera, an old person lives alone' > falls.yaml",
    )
    made.advice = "Say a folder of clips or a table of them."
    add_arguments(made)
    return made


def run(args: Sequence[str]) -> int:
    """Carry out the command: the file goes to standard output, remarks about it to standard error."""
    from rbft.starter.format_flags import split_format_flags

    of_format, others = split_format_flags(args)
    parsed = parser().parse_args(others)
    if len(parsed.source) != 1:
        raise ConfigError("rbft init: say one folder or table of clips, for example `rbft init clips > falls.yaml`.")

    from rbft.starter.source import write_text

    given = {"--vlm": parsed.vlm, "--about": parsed.about, "--preset": parsed.preset}
    flags = [part for flag, value in given.items() if value is not None for part in (flag, value)]
    text, _, said = write_text(parsed.source[0], [*flags, *of_format])
    print(text, end="")
    say(said, sys.stderr)
    return 0
