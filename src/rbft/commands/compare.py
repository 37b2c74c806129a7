"""`rbft compare`: which method is best on these clips, over a few draws, within one budget."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from rbft.arguments import Parser, PlainEpilog
from rbft.errors import ConfigError
from rbft.files import read_json, require_writable, write_atomic, write_json
from rbft.starter.source import add_arguments, experiment_arguments

if TYPE_CHECKING:
    from rbft.evaluation.comparison import Group
    from rbft.evaluation.verdict import Verdict
    from rbft.sweep.comparison import Comparison
    from rbft.sweep.options import Launcher
    from rbft.sweep.progress import Progress
    from rbft.sweep.search import Search

_LAUNCH_FLAGS = ("slots", "gpus", "cores", "per_process")
_CLIPS = 24
PAGE, VERDICT = "report.html", "verdict.json"
DATA = "data.json"
"""In a comparison's folder, the data set that its finished runs are of."""


def _add_flags(made: Parser) -> None:
    made.add_argument("--methods", metavar="NAMES", help="methods to compare, such as sft,rbft; the usual ones without")
    made.add_argument("--baseline", metavar="NAME", help="method that others are compared with; sft")
    made.add_argument("--draws", type=int, help="draws of the labelled clips; 5, or as many as --runs allows")
    made.add_argument("--runs", type=int, help="most runs in all; the last methods are left out first")
    made.add_argument("--hours", type=float, help="begin no run that would end later than this from now")
    made.add_argument("--search", type=int, metavar="N", help="tune the learning rate of each method by N runs a draw")
    made.add_argument("--dry_run", "--dry-run", action="store_true", help="print the runs and their cost, and stop")
    made.add_argument("--slots", type=int, help="runs at once; one a GPU, or one")
    made.add_argument("--gpus", type=int, help="GPUs of each run")
    made.add_argument("--cores", type=int, help="CPU cores of each run")
    made.add_argument("--per_process", type=int, help="runs that share a worker process and its imports")


def parser() -> Parser:
    """The command's own flags; every key of an experiment file is one as well."""
    made = Parser(
        prog="rbft compare",
        allow_abbrev=False,
        formatter_class=PlainEpilog,
        description="Find out which method is best on your clips, over a few draws.",
        epilog=(
            "examples:\n"
            "  rbft compare clips --vlm Qwen/Qwen2.5-VL-3B-Instruct --dry_run\n"
            "  rbft compare clips --vlm Qwen/Qwen2.5-VL-3B-Instruct --hours 8\n"
            "  rbft compare falls.yaml --methods sft,rbft --draws 5\n"
            "  rbft compare builtin:quickstart --runs 6\n\n"
            "Every other flag, such as --data.shots 8, is every run's. The same command\n"
            "again continues where the last one stopped."
        ),
    )
    add_arguments(made)
    _add_flags(made)
    return made


def run(args: Sequence[str]) -> int:
    """Carry out the command.

    Returns:
        The exit code: 0 done, or the budget is used up; 128 + signal where somebody stopped it.

    Raises:
        RBFTError: The comparison cannot start, or a run failed.
    """
    if {"--help", "-h"} & set(args):
        parser().print_help()
        return 0
    own = Parser(prog="rbft compare", add_help=False, allow_abbrev=False)
    _add_flags(own)
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), args))
    parsed, flags = own.parse_known_args(list(args[len(named) :]))
    if parsed.hours is not None and not parsed.hours > 0:
        raise ConfigError(f"--hours {parsed.hours:g}: it must be more than 0.")
    arguments, said = experiment_arguments([*named, *flags])

    from rbft.commands.sweep import end, make_search, require_locks, require_processes, tried_runs
    from rbft.pipeline.plan import methods_seconds
    from rbft.pipeline.prepare import prepare
    from rbft.sweep.comparison import make_comparison
    from rbft.sweep.display import SweepBoard
    from rbft.sweep.driver import Driver
    from rbft.sweep.launchers import make_launcher
    from rbft.sweep.progress import Progress
    from rbft.terminal import make_console, quieten

    methods = [name.strip() for name in (parsed.methods or "").split(",") if name.strip()]
    launch = {name: getattr(parsed, name) for name in _LAUNCH_FLAGS if getattr(parsed, name) is not None}
    comparison = make_comparison(
        arguments,
        launch,
        methods=methods,
        baseline=parsed.baseline,
        draws=parsed.draws,
        runs=parsed.runs,
        search=parsed.search,
    )
    console = make_console(alone=True)
    if said:
        console.print(escape(said))
    plan = comparison.sweep
    require_processes(plan)
    search = None if parsed.search is None else make_search(plan, parsed.search)
    launcher = make_launcher(plan.launch, plan.folder.absolute(), len(plan.runs))
    progress = {entry.id: Progress(entry) for entry in plan.runs}
    quieten()
    # everything that a run would refuse is refused here, and the clips are kept for the runs
    prepared = [prepare(experiment, console) for experiment in comparison.experiments.values()]
    data = {"records": prepared[0][0].data_set}
    finished = _mark_finished(comparison, progress)
    verify = finished > 0 and not _is_of(plan.folder, data)
    _print_plan(comparison, methods_seconds(prepared), progress, search, launcher, console)
    if verify:
        console.print(
            f"The data set is not known to be what the {finished} finished runs were of; they are checked again."
        )
    if parsed.dry_run:
        return 0
    require_locks("rbft compare")
    require_writable(plan.folder / VERDICT, "run_root")
    if verify:
        for entry in progress.values():
            entry.state = "waiting"
    else:
        write_json(plan.folder / DATA, data)
    until = None if parsed.hours is None else time.time() + 3600 * parsed.hours
    with SweepBoard(progress, console) as board:
        allowed = None if search is None else search.allowed
        driver = Driver(plan, launcher, progress, board, verify=verify, until=until, allowed=allowed)
        stopped = driver.run()
    left = [name for name in progress if search is None or name in search.allowed(progress)]
    left = [name for name in left if progress[name].state == "waiting"]
    if not stopped and not left and all(entry.state != "failed" for entry in progress.values()):
        write_json(plan.folder / DATA, data)
    if search is not None:
        progress = tried_runs(progress)
        driver.write_plan([entry.run for entry in progress.values()])
    conclude(comparison, list(progress.values()), console)
    if left and not stopped:
        # a search allows its next runs when it has seen these
        count = f"{len(left)}" if search is None else f"{len(left)} or more"
        console.print(f"The budget is used up with {count} runs left; the same command continues.")
    return end(plan, progress, stopped, ["rbft", "compare", *args])


def _is_of(folder: Path, data: dict[str, str]) -> bool:
    """Whether the finished runs of a comparison are known to be of this data set."""
    path = folder / DATA
    return path.is_file() and read_json(path) == data


def _mark_finished(comparison: Comparison, progress: dict[str, Progress]) -> int:
    """Set the state of the runs that are finished; gives their number."""
    from rbft.sweep.state import is_finished, read_record

    for entry in progress.values():
        entry.record = read_record(comparison.sweep.folder, entry.run.id)
        if is_finished(entry.record, entry.run):
            entry.state = "finished"
    return sum(entry.state == "finished" for entry in progress.values())


def _print_plan(
    comparison: Comparison,
    costs: tuple[Sequence[float | None], float | None],
    progress: dict[str, Progress],
    search: Search | None,
    launcher: Launcher,
    console: Console,
) -> None:
    """Print methods and cost."""
    from rbft.evaluation.verdict import method_words
    from rbft.sweep.progress import duration, remaining_seconds

    plan = comparison.sweep
    seconds, together = costs
    draws = "1 draw" if comparison.draws == 1 else f"{comparison.draws} draws"
    console.print(
        f"[bold]{escape(plan.name)}[/]: {len(comparison.methods)} methods over {draws}, "
        f"{len(plan.runs) if search is None else search.runs} runs;\n{escape(launcher.describe())}"
    )
    width = max(map(len, comparison.methods))
    for (name, experiment), cost in zip(comparison.experiments.items(), seconds, strict=True):
        words = "" if method_words(name) == name else f"{method_words(name)}: "
        stages = " -> ".join(stage.name for stage in experiment.stages)
        about = "" if cost is None else f", {duration(max(1.0, cost))}"
        console.print(f"  {escape(name):<{width}}  {escape(words + stages)}{about}")
    if comparison.left_out:
        left_out = ", ".join(comparison.left_out)
        console.print(f"left out, as the runs would not suffice for draws: {escape(left_out)}")
    done = sum(entry.state == "finished" for entry in progress.values())
    planned = len(progress) if search is None else search.runs
    left = max(0, planned - done)
    finished = remaining_seconds(list(progress.values()))
    at_once = max(1, min(launcher.slots, left))
    if left and finished is not None:
        # of a search, only some of the runs that are not there will be
        total = finished[0] * left / (len(progress) - done) / at_once
        console.print(f"cost: about {duration(total)} for the {left} runs that are left, by {done} finished ones")
    elif left and together is not None:
        if search is not None:
            times = [comparison.each[name] for name in comparison.methods]
            together = sum((cost or 0.0) * count for cost, count in zip(seconds, times, strict=True))
        total = max(1.0, together) * comparison.draws / at_once
        console.print(f"cost: about {duration(total)} of computing, without starting runs and decoding")
    console.print(f"records and logs: {escape(str(plan.folder))}\n")


def conclude(comparison: Comparison, progress: Sequence[Progress], console: Console) -> Verdict | None:
    """Print the verdict on what is finished, write the page, and name the run to predict with; None before any."""
    from rbft.evaluation.verdict import decide, method_words
    from rbft.sweep.progress import method_seconds
    from rbft.sweep.summary import summarise, to_json

    plan = comparison.sweep
    groups = summarise(plan, progress)
    write_json(plan.folder / "summary.json", to_json(groups))
    if not any(group.accuracy is not None for group in groups):
        return None
    seconds = method_seconds(progress)
    main = next(name for name in ("rbft", *comparison.methods[1:]) if name in comparison.methods[1:])
    verdict = decide(groups, baseline=comparison.methods[0], main=main, seconds=seconds, unusable=comparison.unusable)
    _print_methods(groups, comparison.methods[0], seconds, console)
    for group in groups:
        if group.chosen:
            console.print(f"chosen on validation videos, {group.point['method']}: {escape(group.chosen_words)}")
    sentences = list(verdict.sentences)
    run = _chosen(comparison, progress, verdict.method)
    command = None if run is None else shlex.join(["rbft", "predict", "--run", str(run)]) + " VIDEO"
    if verdict.method is not None:
        take = "Take" if verdict.worth_using else "Nearest to being of use is"
        sentences.append(f"{take} {method_words(verdict.method)}; its run of the first draw is ready.")
    for sentence in sentences:
        console.print(escape(sentence))
    page = _write_page(comparison, [*sentences, *([f"Use: {command}"] if command else [])])
    write_json(
        plan.folder / VERDICT,
        {
            "outcome": verdict.outcome,
            "sentences": list(verdict.sentences),
            "method": verdict.method,
            "run": None if run is None else str(run),
            "seconds": seconds,
        },
    )
    console.print(f"page: {escape(str(page))}")
    if command is not None:
        console.print(f"Use: {escape(command)}")
    return verdict


def _chosen(comparison: Comparison, progress: Sequence[Progress], method: str | None) -> Path | None:
    """The run of a method to predict with: the first draw's, which no test video has chosen."""
    from rbft.sweep.summary import chosen_entries

    entries = chosen_entries(comparison.sweep, progress)
    finished = [entry.run for entry in entries if entry.state == "finished" and entry.run.point["method"] == method]
    return finished[0].folder if finished else None


def _write_page(comparison: Comparison, sentences: Sequence[str]) -> Path:
    from rbft.report.collection import collect, planned_choice
    from rbft.report.overview import make_overview
    from rbft.report.overview_page import write_overview

    folder = comparison.sweep.folder
    entries = collect([str(folder)])
    choose = planned_choice([str(folder)], entries)
    plan = comparison.sweep
    overview = make_overview(entries, plan.baseline, _CLIPS, choose, plan.replicates)
    write_atomic(folder / PAGE, write_overview(overview, comparison.sweep.name, sentences))
    return folder / PAGE


def _print_methods(groups: Sequence[Group], baseline: str, seconds: dict[str, float], console: Console) -> None:
    """A row a method that fits a terminal of 80 columns."""
    from rich.table import Table

    from rbft.evaluation.comparison import interval_words
    from rbft.sweep.progress import duration

    table = Table(box=None, pad_edge=False)
    table.add_column("method", overflow="fold")
    for title in ("runs", "accuracy", "95% interval", f"- {baseline}", "95% interval", "a run"):
        table.add_column(escape(title), justify="right")
    for group in groups:
        method, accuracy, comparison = str(group.point["method"]), group.accuracy, group.comparison
        change = None if comparison is None else comparison.difference.difference
        table.add_row(
            escape(method),
            f"{accuracy.count if accuracy else 0}/{group.runs}",
            f"{accuracy.mean:.1%}" if accuracy else "missing",
            interval_words(accuracy),
            "" if change is None else f"{100 * change.mean:+.1f}",
            "" if change is None else interval_words(change, points=True),
            duration(seconds[method]) if method in seconds else "",
        )
    console.print(table)
