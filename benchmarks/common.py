"""What the benchmarks share: flags, fair timing in turns, the environment, the table, and the record as JSON."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rbft.files import write_json
from rbft.runs.environment import describe_environment

Row = dict[str, Any]

_FILE_COLUMNS = 160  # of a table that goes into a file or a pipe


def make_parser(name: str, description: str | None, repeats: int) -> argparse.ArgumentParser:
    """A parser with the flags every benchmark has.

    Args:
        name: Of the benchmark; the script is `benchmarks/<name>.py`.
        description: Text for `--help`, usually the docstring of the script.
        repeats: Default of `--repeats`.
    """
    parser = argparse.ArgumentParser(
        prog=f"benchmarks/{name}.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file to write the record to")
    parser.add_argument(
        "--repeats", type=_positive, default=repeats, help="measurements of each (default: %(default)s)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def cpu_seconds() -> float:
    """Seconds of processor time, user and system, of all threads of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def time_in_turns(
    contestants: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = cpu_seconds,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Measures all contestants in every round, so that a change of the machine's pace meets all of them.

    Every other round goes backwards, so that nobody always runs
    after the same predecessor.

    Args:
        contestants: What to call, by name.
        repeats: Rounds that count.
        clock: Seconds; processor time by default, because other work on the machine touches it least.
        warm_up: Whether a round that only warms caches goes before; not needed if all have been called already.

    Returns:
        `repeats` durations in seconds of each contestant, in the order of the rounds.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.freeze()  # lest clearing up after every contestant, so that no other pays for it, walks through all modules
    try:
        for turn in range(-warm_up, repeats):
            for name in names if turn % 2 else reversed(names):
                gc.collect()
                start = clock()
                contestants[name]()
                spent = clock() - start
                if turn >= 0:
                    seconds[name].append(spent)
    finally:
        gc.unfreeze()
    return seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over the rounds of the ratio within a round, to three significant digits."""
    ratio = statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))
    return float(f"{ratio:.3g}")


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keeps this process and its children on one core, where the system can, so that nobody uses more threads than one.

    Libraries that choose their number of threads by the cores they may use choose one.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def describe(packages: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """The environment of a record: versions, hardware, revision, load, and the command without its folders.

    Args:
        packages: Distributions whose versions matter beside those that rbft itself needs; null if not installed.
        arguments: Of the script.
    """
    environment = describe_environment()
    for package in packages:
        try:
            environment["packages"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            environment["packages"][package] = None
    return environment | {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "load_average": load_average(),
        "command": " ".join([Path(sys.argv[0]).name, *(_name(argument) for argument in arguments)]),
    }


def _name(argument: str) -> str:
    """An argument, of an absolute path only its last part."""
    return Path(argument).name if argument.startswith("/") else argument


def load_average() -> float:
    """Processes that ran or waited to run, on average of the last minute."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str | None:
    """The name of the processor where Linux tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def write_record(path: Path, benchmark: str, environment: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Writes a record whole or not at all.

    Raises:
        ValueError: A row does not say its case.
    """
    for row in rows:
        if "case" not in row:
            raise ValueError(f"a row of benchmark {benchmark} has no case: {row}")
    write_json(path, {"benchmark": benchmark, "environment": dict(environment), "rows": list(rows)})


def say(text: str) -> None:
    """A line about what is being done, beside the results."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Prints the named fields of rows; a field that is absent or null is left empty."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_COLUMNS)
    console.print(table, "")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
