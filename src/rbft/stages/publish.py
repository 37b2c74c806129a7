"""What a run leaves when its stages are done: its metrics, its page, and the final lines in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from rbft.evaluation.calibration import Calibration
from rbft.evaluation.predictions import read_predictions
from rbft.files import read_json, write_atomic, write_json
from rbft.rationales.store import read_rationales
from rbft.runs.names import CALIBRATION, METRICS, PREDICTIONS, RATIONALES, REPORT
from rbft.runs.run_folder import RunFolder
from rbft.runs.stage_record import read_record
from rbft.stages.cautions import run_cautions
from rbft.stages.kept_passes import describe_passes
from rbft.stages.labels_used import describe_labels, label_figures
from rbft.stages.rounds import print_rounds, read_rounds, round_metrics

if TYPE_CHECKING:
    from rbft.experiment import Experiment
    from rbft.stages.read_stage import ReadStage


def conclude(experiment: Experiment, prepared: Sequence[ReadStage], console: Console, *, publish: bool) -> None:
    """Publish the last test's figures as the run's, write its page, and print the headline.

    Args:
        experiment: experiment that was run.
        prepared: its stages.
        console: console to print on.
        publish: whether to write anything; without it the files of the run stay as they are.
    """
    tests = [entry for entry in prepared if entry.stage.tests]
    if not tests or not _is_current(experiment, tests[-1]):
        return
    last, run_dir = tests[-1], experiment.run_dir
    rounds = read_rounds(run_dir, prepared)
    labels = label_figures(prepared)
    metrics = _accuracies(experiment, tests[:-1])
    # of an earlier stage that is called `test` nothing may stand for the run's own
    metrics |= read_json(run_dir / last.stage.name / METRICS)
    metrics |= round_metrics(rounds) | labels
    path = run_dir / last.stage.name / CALIBRATION
    calibration = Calibration.from_json(read_json(path), path)
    if publish:
        write_json(run_dir / METRICS, metrics)
        for name in (CALIBRATION, PREDICTIONS):
            write_atomic(run_dir / name, (run_dir / last.stage.name / name).read_bytes())
    cautions = run_cautions(RunFolder(run_dir))
    if publish:
        _write_page(experiment, prepared, last, metrics, calibration, cautions)
    print_rounds(rounds, console)
    _print_found(run_dir, metrics, calibration, cautions, console)


def _accuracies(experiment: Experiment, tests: Sequence[ReadStage]) -> dict[str, Any]:
    """The accuracies of tests before the last, by the name of their stage."""
    found: dict[str, Any] = {}
    for entry in tests:
        if _is_current(experiment, entry):
            figures = read_json(experiment.run_dir / entry.stage.name / METRICS)
            found |= {
                f"{entry.stage.name}/{key.removeprefix('test/')}": value
                for key, value in figures.items()
                if key.startswith("test/accuracy")
            }
    return found


def _write_page(
    experiment: Experiment,
    prepared: Sequence[ReadStage],
    last: ReadStage,
    metrics: dict[str, Any],
    calibration: Calibration,
    cautions: Sequence[str],
) -> None:
    """The run's page, with its rationales and what an audit of them says."""
    # neither is needed where everything was done already
    from rbft.rationales.audit import audit_stored
    from rbft.report.run_page import write_page

    run_dir = experiment.run_dir
    writer = next((entry for entry in reversed(prepared) if entry.stage.kind == "write"), None)
    written = run_dir / (writer.stage.name if writer is not None else "") / RATIONALES
    rationales = read_rationales(written) if written.is_file() else []
    audit = None
    if writer is not None and rationales:
        record = read_record(run_dir / writer.stage.name)
        doubts = [] if record is None else record.summary.get("doubts", [])
        audit = audit_stored(writer.stage.name, rationales, writer.book, writer.module.checks, doubts)
    write_page(
        run_dir / REPORT,
        experiment,
        last.datamodule,
        metrics,
        read_predictions(run_dir / PREDICTIONS),
        rationales,
        calibration.describe(),
        audit,
        cautions,
        describe_labels(metrics),
        _passes(run_dir, prepared),
    )


def _passes(run_dir: Path, prepared: Sequence[ReadStage]) -> list[tuple[str, str]]:
    """Stages that were spared passes through frozen layers, each with a clause on them."""
    records = ((entry.stage.name, read_record(run_dir / entry.stage.name)) for entry in prepared)
    found = ((name, "" if record is None else describe_passes(record.summary)) for name, record in records)
    return [(name, clause) for name, clause in found if clause]


def _print_found(
    run_dir: Path, metrics: Mapping[str, Any], calibration: Calibration, cautions: Sequence[str], console: Console
) -> None:
    """The accuracy with its interval, what stands beside it, and what to know of it."""
    low, high = metrics["test/accuracy_ci95"]
    console.print(
        f"\n[bold]accuracy {metrics['test/accuracy']:.1%}[/] (95% interval {low:.1%} to {high:.1%}, "
        f"{metrics['test/num_videos']} test videos), balanced {metrics['test/balanced_accuracy']:.1%}, "
        f"macro-F1 {_percent(metrics['test/macro_f1'])}"
    )
    order = ("chance", "majority")
    beside = {key.removesuffix("/accuracy"): value for key, value in metrics.items() if key.endswith("/accuracy")}
    floors = [
        f"{name.replace('_', '-')} {beside[name]:.1%}"
        for name in (*order, *(name for name in beside if name not in ("test", *order)))
        if beside[name] is not None
    ]
    console.print(f"beside it: {escape(', '.join(floors))}")
    console.print(f"learned from: {describe_labels(metrics)}")
    for caution in cautions:
        console.print(f"[bold]warning:[/] {escape(caution)}")
    console.print(f"calibration: {escape(calibration.describe())}")
    console.print(escape(f"run: {run_dir}  (report.html; tensorboard --logdir {shlex.quote(str(run_dir))})"))


def _is_current(experiment: Experiment, entry: ReadStage) -> bool:
    """Whether a stage's output exists and belongs to these settings."""
    record = read_record(experiment.run_dir / entry.stage.name)
    return record is not None and record.fingerprint == entry.fingerprint


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"
