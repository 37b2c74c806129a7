"""What starting costs, beside an earlier version: a plan, a small run and the quickstart, and each run once more.

    git worktree add /tmp/before REVISION
    python benchmarks/starting.py --before /tmp/before --json benchmarks/records/starting.json

Both versions run in the same Python environment, in turns, one thread each, over the same clips. Each reads its own
experiment files. The quickstart begins with empty caches. Its file may train other layers than the earlier version's:
`all layers` is the version of now with all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import (
    Row,
    describe,
    make_parser,
    median_ratio,
    on_one_core,
    print_table,
    say,
    time_in_turns,
    write_record,
)

HERE = Path(__file__).parents[1]
RUN = ("--method", "sft", "--seed_everything", "901")
ALL_LAYERS = ("--model.tuning.layers", "null")


def environment_of(source: Path) -> dict[str, str]:
    """Variables with which Python finds the package in `source`, and uses one thread."""
    return {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}


def revision_of(source: Path) -> str:
    """The commit that is checked out in a folder."""
    asked = ["git", "-C", str(source), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def command(source: Path, folder: Path, *arguments: str) -> None:
    """One command of the package in `source`, run in `folder`, whose caches it uses."""
    subprocess.run(
        [sys.executable, "-m", "rbft", *arguments],
        cwd=folder,
        env=environment_of(source) | {"RBFT_CACHE": str(folder / "cache")},
        check=True,
        capture_output=True,
    )


def again(source: Path, folder: Path, *more: str) -> None:
    """The small run, or what is left to do of it."""
    command(source, folder, "fit", "--config", str(source / "experiments" / "map.yaml"), *RUN, *more)


def anew(source: Path, folder: Path) -> None:
    """The small run, of which nothing is done."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    again(source, folder)


def plan(source: Path, folder: Path) -> None:
    """The plan of the small run."""
    again(source, folder, "--dry_run")


def quickstart_again(source: Path, folder: Path, *more: str) -> None:
    """The quickstart, or what is left to do of it."""
    command(source, folder, "fit", "--config", str(source / "experiments" / "quickstart.yaml"), *more)


def quickstart(source: Path, folder: Path, *more: str) -> None:
    """The quickstart, of which nothing is done or cached."""
    for name in ("runs", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    quickstart_again(source, folder, *more)


CASES: dict[str, Callable[..., None]] = {
    "a run of 80 steps": anew,
    "the same again, all done": again,
    "the plan alone": plan,
}
QUICKSTART: dict[str, Callable[..., None]] = {
    "the quickstart": quickstart,
    "the quickstart again, all done": quickstart_again,
}


def main() -> None:
    """The command line."""
    parser = make_parser("starting", __doc__, repeats=3)
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout of an earlier version")
    args = parser.parse_args()
    sources = {"before": args.before.absolute(), "now": HERE}
    revision = revision_of(args.before)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch, on_one_core():
        folders = {name: Path(scratch) / name for name in (*sources, "all layers")}
        (HERE / "data").mkdir(exist_ok=True)
        for folder in folders.values():
            folder.mkdir()
            (folder / "data").symlink_to(HERE / "data")
        say("making the clips")
        plan(HERE, folders["now"])
        quickstart_again(HERE, folders["now"], "--dry_run")
        for case, does in (CASES | QUICKSTART).items():
            say(case)
            calls: dict[str, Callable[[], object]] = {
                name: partial(does, sources[name], folders[name]) for name in sources
            }
            if case in QUICKSTART:
                calls["all layers"] = partial(does, HERE, folders["all layers"], *ALL_LAYERS)
            seconds = time_in_turns(calls, args.repeats, warm_up=False)
            row: Row = {
                "case": case,
                **{name: [round(value, 2) for value in values] for name, values in seconds.items()},
                "ratio": median_ratio(seconds["before"], seconds["now"]),
            }
            if case in QUICKSTART:
                row["ratio, all layers"] = median_ratio(seconds["before"], seconds["all layers"])
            rows.append(row)
    columns = ["case", "before", "now", "all layers", "ratio", "ratio, all layers"]
    print_table("processor time in seconds; ratio: before over now", columns, rows)
    environment = describe([], sys.argv[1:]) | {"before": revision}
    write_record(args.json, "starting", environment, rows)


if __name__ == "__main__":
    main()
