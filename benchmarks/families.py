"""What benchmarks of small models share: flags, one thread on one core, a family after the other, table and record."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from benchmarks.common import Row
from benchmarks.models import FAMILIES, SIZES, build

from benchmarks import common


@dataclass(frozen=True)
class Benchmark:
    """A script that measures models of some families.

    Args:
        name: The script is `benchmarks/<name>.py`.
        description: Text for `--help`.
        repeats: Default of `--repeats`.
        add_flags: Adds the flags that only this script has.
        measure: The rows of one family, of its name, the folder of its model and the flags.
        title: Of the table.
        columns: Fields of the rows that the table shows.
        shapes: Models of published dimensions that it measures where `--shapes` names them, and how each is written.
    """

    name: str
    description: str | None
    repeats: int
    add_flags: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[str, Path, argparse.Namespace], list[Row]]
    title: str
    columns: tuple[str, ...]
    shapes: Mapping[str, Callable[[Path], Path]] = field(default_factory=dict)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Measure, print, and write the record."""
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        parser = common.make_parser(self.name, self.description, self.repeats)
        parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
        parser.add_argument(
            "--size", choices=tuple(SIZES), default="small", help="of the models (default: %(default)s)"
        )
        if self.shapes:
            text = "models of published dimensions, in place of the families"
            parser.add_argument("--shapes", nargs="+", choices=tuple(self.shapes), default=(), help=text)
        self.add_flags(parser)
        flags = parser.parse_args(arguments)
        torch.set_num_threads(1)
        rows: list[Row] = []
        with common.on_one_core(), tempfile.TemporaryDirectory() as folder:
            for name in getattr(flags, "shapes", ()) or flags.families:
                write = self.shapes.get(name)
                files = build(name, flags.size, Path(folder)) if write is None else write(Path(folder))
                rows += self.measure(name, files, flags)
        common.print_table(self.title, self.columns, rows)
        common.write_record(flags.json, self.name, common.describe([], arguments), rows)
        return 0
