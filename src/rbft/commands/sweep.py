"""`rbft sweep`: read the sweep file, print the plan, carry it out, and print the result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser
from rbft.errors import ConfigError, RBFTError
from rbft.files import require_writable, write_json
from rbft.runs.lock import KERNEL_LOCKS
from rbft.sweep.display import SweepBoard, headline
from rbft.sweep.driver import Driver
from rbft.sweep.grid import Sweep, read_sweep
from rbft.sweep.launchers import LocalLauncher, make_launcher
from rbft.sweep.options import LAUNCHERS
from rbft.sweep.progress import Progress, duration, remaining_seconds
from rbft.sweep.state import is_finished, is_running, read_record
from rbft.terminal import make_console

if TYPE_CHECKING:
    from rbft.sweep.search import Search

_PLAIN_WIDTH = 120
_LAUNCH_FLAGS = ("launcher", "slots", "gpus", "cores", "per_process", "retries", "ray_address")


def parser() -> Parser:
    """The command's flags."""
    parser = Parser(
        prog="rbft sweep",
        allow_abbrev=False,
        description="Run an experiment over a grid of settings, several runs at once.",
        epilog="`rbft sweep FILE` is `rbft sweep --config FILE`. Any other flag, such as --data.root, is every run's.",
    )
    parser.add_argument("--config", "-c", required=True, help="The sweep file.")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="Print the runs and their cost, and stop.")
    parser.add_argument(
        "--verify", action="store_true", help="Have finished runs check their videos and models again, too."
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, help="Where runs are started.")
    parser.add_argument("--slots", type=int, help="Runs at once.")
    parser.add_argument("--gpus", type=int, help="GPUs of each run.")
    parser.add_argument("--cores", type=int, help="CPU cores of each run.")
    parser.add_argument("--per_process", type=int, help="Runs that share a worker process and its imports.")
    parser.add_argument("--retries", type=int, help="Number of times a run that crashed is tried again.")
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="Try N runs of those that differ in `choose` alone, suggested by Optuna, in place of all.",
    )
    parser.add_argument("--ray_address", help="Address of the Ray cluster.")
    return parser


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Returns:
        The exit code: 0 all runs are finished; 128 + signal where somebody stopped it.

    Raises:
        RBFTError: The sweep cannot start, or a run failed.
    """
    words = list(args)
    if words and not words[0].startswith("-"):
        words[:1] = ["--config", words[0]]
    parsed, flags = parser().parse_known_args(words)
    launch = {name: getattr(parsed, name) for name in _LAUNCH_FLAGS if getattr(parsed, name) is not None}
    console = make_console(alone=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    plan = read_sweep(parsed.config, flags, launch)
    progress = {run.id: Progress(run) for run in plan.runs}
    require_processes(plan)
    search = None if parsed.search is None else make_search(plan, parsed.search)
    if parsed.dry_run:
        _dry_run(plan, progress, console)
        if search is not None:
            console.print(f"of these, {search.runs} runs are tried, as earlier ones suggest")
        return 0
    require_locks("rbft sweep")
    require_writable(plan.folder / "summary.json", "run_root")
    launcher = make_launcher(plan.launch, plan.folder.absolute(), len(plan.runs))
    console.print(
        f"[bold]{escape(plan.name)}[/]: {len(plan.runs)} runs on {escape(launcher.describe())}\n"
        f"records and logs: {escape(str(plan.folder))}"
    )
    with SweepBoard(progress, console) as board:
        driver = Driver(
            plan, launcher, progress, board, verify=parsed.verify, allowed=None if search is None else search.allowed
        )
        stopped = driver.run()
    if search is not None:
        progress = tried_runs(progress)
        driver.write_plan([entry.run for entry in progress.values()])
    groups = conclude(plan, progress, console)
    write_json(plan.folder / "summary.json", groups)
    return end(plan, progress, stopped, ["rbft", "sweep", *args])


def make_search(plan: Sweep, trials: int) -> Search:
    """The search over the `choose` keys of a sweep; imported here, as scipy takes a second.

    Raises:
        ConfigError: It cannot be made.
    """
    from rbft.sweep.search import Search

    return Search(plan, trials)


def tried_runs(progress: dict[str, Progress]) -> dict[str, Progress]:
    """The runs that a search began."""
    from rbft.sweep.search import was_tried

    return {name: entry for name, entry in progress.items() if was_tried(entry)}


def require_processes(plan: Sweep) -> None:
    """Refuse runs that cannot share a worker process.

    Raises:
        ConfigError: They start several processes of their own.
    """
    if plan.launch.per_process > 1 and max(plan.processes, plan.launch.gpus or 0) > 1:
        raise ConfigError(
            "launch.per_process: runs that start several processes of their own (trainer.devices, "
            "launch.gpus above 1) cannot share one; set it to 1."
        )


def require_locks(command: str) -> None:
    """Refuse to start several runs where nothing keeps them apart.

    Raises:
        ConfigError: This system has no such locks.
    """
    if not KERNEL_LOCKS:
        raise ConfigError(
            f"{command} keeps runs apart by locks that this system has not (fcntl: Linux, macOS, WSL). Run each "
            "setting by `rbft fit` (--dry_run lists them), or start it there."
        )


def end(plan: Sweep, progress: dict[str, Progress], stopped: int, command: Sequence[str]) -> int:
    """The exit code of a sweep that has ended.

    Args:
        plan: the sweep.
        progress: how its runs stand.
        stopped: number of the signal that ended it, 0 where none did.
        command: command line that continues it.

    Raises:
        RBFTError: Runs failed.
    """
    if stopped:
        print(
            f"rbft: stopped with {headline(progress)}. To continue: {shlex.join(command)}",
            file=sys.stderr,
        )
        return 128 + stopped
    if failed := [entry for entry in progress.values() if entry.state == "failed"]:
        reasons = "".join(f"\n  {entry.run.id}: {entry.reason}" for entry in failed)
        raise RBFTError(
            f"{len(failed)} of {len(progress)} runs failed; their logs are in {plan.folder / 'logs'}. The "
            f"same command tries them again.{reasons}"
        )
    return 0


def conclude(plan: Sweep, progress: dict[str, Progress], console: Console) -> list[dict[str, object]]:
    """Print and return the result of the finished runs."""
    if not console.is_terminal:  # on a terminal the table ends with it
        console.print(headline(progress))
    if not any(entry.accuracy() is not None for entry in progress.values()):
        return []
    # scipy takes a second, which a plan or a stop need not wait for
    from rbft.report.groups_table import print_groups
    from rbft.sweep.summary import summarise, to_json

    groups = summarise(plan, list(progress.values()))
    print_groups(groups, plan.baseline, plan.name, console, plan.replicates)
    return to_json(groups)


def _dry_run(plan: Sweep, progress: dict[str, Progress], console: Console) -> None:
    width = max(map(len, progress))
    for entry in progress.values():
        entry.record = read_record(plan.folder, entry.run.id)
        if is_finished(entry.record, entry.run):
            entry.state = "finished"
        elif is_running(entry.run):
            entry.state = "running"
        console.print(f"{escape(entry.run.id):<{width}}  {entry.state:<8}  {escape(str(entry.run.folder))}")
    # a plan submits nothing and starts no cluster
    local = LocalLauncher(plan.launch, plan.folder, len(plan.runs)) if plan.launch.launcher == "local" else None
    slots = local.slots if local is not None else plan.launch.slots or len(plan.runs)
    where = local.describe() if local is not None else f"{plan.launch.launcher}, {slots} at once"
    console.print(f"{headline(progress)}; {escape(where)}")
    left = sum(entry.state != "finished" for entry in progress.values())
    if not left:
        return
    if (known := remaining_seconds(list(progress.values()))) is None:
        console.print("cost: not known before a run of this sweep is finished")
    else:
        seconds, count = known
        at_once = min(slots, left)
        console.print(
            f"cost: about {duration(seconds)} of computing, {duration(seconds / at_once)} with {at_once} at "
            f"once (estimated from {count} finished run(s), start-up not counted)"
        )
