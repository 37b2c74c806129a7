"""What a sweep costs, beside an earlier version: every method of the declared cell, for some of its draws.

    git worktree add /tmp/before REVISION
    python benchmarks/sweeping.py --before /tmp/before --json benchmarks/records/sweeping.json

Both versions run the sweep that `make reproduce-builtin` runs, with fewer draws: one run at a time on one core, in the
same Python environment, in turns. Each begins with nothing: its videos are made, its caches are empty. The experiment
file is that of the earlier version. `accuracy` is the mean over all runs, to see that both did the same work.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

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
from benchmarks.starting import environment_of, revision_of

from rbft.files import read_json

HERE = Path(__file__).parents[1]
SWEEP = HERE / "experiments" / "sweeps" / "map_unions.yaml"


def write_sweep(experiment: Path, seeds: int, path: Path) -> int:
    """Write the sweep with its first seeds alone.

    Args:
        experiment: What every run does.
        seeds: How many.
        path: Where to.

    Returns:
        The number of runs.

    Raises:
        ValueError: The sweep has fewer seeds.
    """
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    known = sweep["grid"]["seed_everything"]
    if not 1 <= seeds <= len(known):
        raise ValueError(f"--seeds {seeds}: {SWEEP.name} has {len(known)}; choose 1 to {len(known)}")
    grid = sweep["grid"] | {"seed_everything": known[:seeds]}
    launch = sweep["launch"] | {"slots": 1}
    content = sweep | {"experiment": str(experiment), "grid": grid, "launch": launch}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return seeds * len(grid["method"])


def run_sweep(source: Path, sweep: Path, scratch: Path, accuracies: list[float]) -> None:
    """The whole sweep by the package in `source`, beginning with nothing; notes the mean accuracy of its runs.

    Raises:
        RuntimeError: It failed.
    """
    say(f"sweep of {source.name}")
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        environment = environment_of(source) | {"RBFT_CACHE": str(folder / "cache")}
        ended = subprocess.run(
            [sys.executable, "-m", "rbft", "sweep", "--config", str(sweep), "--run_root", str(folder / "runs")],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            said = ended.stdout + ended.stderr
            raise RuntimeError(f"the sweep of {source} ended with code {ended.returncode}:\n{said[-2000:]}")
        found = [read_json(path)["test/accuracy"] for path in folder.glob("runs/**/seed*/metrics.json")]
    accuracies.append(statistics.mean(found))


def main() -> None:
    """The command line."""
    parser = make_parser("sweeping", __doc__, repeats=1)
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--seeds", type=int, default=1, help="draws, of which each has ten runs (default: %(default)s)")
    args = parser.parse_args()
    sources = {"before": args.before.absolute(), "now": HERE}
    environment = describe([], sys.argv[1:]) | {"before": revision_of(args.before)}
    with tempfile.TemporaryDirectory() as name, on_one_core():
        scratch = Path(name)
        sweep = scratch / "sweep.yaml"
        try:
            runs = write_sweep(sources["before"] / "experiments" / "map.yaml", args.seeds, sweep)
        except ValueError as error:
            parser.error(str(error))
        accuracies: dict[str, list[float]] = {name: [] for name in sources}
        calls: dict[str, Callable[[], object]] = {
            name: partial(run_sweep, source, sweep, scratch, accuracies[name]) for name, source in sources.items()
        }
        seconds = time_in_turns(calls, args.repeats, warm_up=False)
    row: Row = {
        "case": f"a sweep of {runs} runs",
        **{name: [round(value, 1) for value in values] for name, values in seconds.items()},
        "ratio": median_ratio(seconds["before"], seconds["now"]),
        "accuracy": {name: round(statistics.mean(values), 4) for name, values in accuracies.items()},
    }
    columns = ["case", "before", "now", "ratio", "accuracy"]
    print_table("processor time in seconds; ratio: before over now", columns, [row])
    write_record(args.json, "sweeping", environment, [row])


if __name__ == "__main__":
    main()
