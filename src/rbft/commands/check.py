"""`rbft check`: check an experiment's data set before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.markup import escape

from rbft.arguments import Parser, say
from rbft.experiment import make_parser, read_experiment
from rbft.files import write_json
from rbft.runs.names import CHECK
from rbft.starter.source import add_arguments, experiment_arguments


def parser() -> Parser:
    """The command's own flags; it takes the keys of an experiment file as `rbft fit` does."""
    made = make_parser("rbft check")
    made.description = "Look for damage, copies, leaks and costs before anything runs."
    add_arguments(made)
    return made


def run(args: Sequence[str]) -> int:
    """Report to the terminal and to `check.json` in the run folder.

    Returns:
        1 where a run may not start.
    """
    if {"--help", "-h"} & set(args):
        parser().print_help()
        return 0
    arguments, said = experiment_arguments(args)
    experiment = read_experiment(arguments)
    if said:
        say(said, sys.stdout)

    from rbft.data.check_report import print_report
    from rbft.estimate.report import print_clips, print_estimates, to_json
    from rbft.pipeline.video_check import check_experiment
    from rbft.terminal import make_console, quieten

    console = make_console()
    quieten()
    report, model = check_experiment(experiment, console)
    print_report(report, console)
    if model is not None and model.clips is not None:
        print_clips(model.clips, console)
        print_estimates(model.estimates, model.device, console)
    path = experiment.run_dir / CHECK
    cost = None if model is None else to_json(model.clips, model.estimates, model.device)
    write_json(path, report.to_json() | {"estimate": cost})
    console.print(f"written to {escape(str(path))}")
    return 1 if report.errors else 0
