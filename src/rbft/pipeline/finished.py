"""A run of which everything is done: told from its settings and its videos, without a model or its processor."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from rbft.experiment import Experiment
from rbft.runs.run_folder import has_results
from rbft.runs.stage_record import read_record, verify_outputs
from rbft.stages.read_stage import ReadStage
from rbft.terminal import make_console, quieten_lightning


def print_finished(experiment: Experiment) -> bool:
    """Print what a run found if all of it is done and made from the very same settings and videos.

    Returns:
        Whether it is; if not, nothing was printed or changed.

    Raises:
        RBFTError: Settings are wrong, or what a stage left was changed since.
    """
    if experiment.dry_run or experiment.restart or experiment.only is not None or not _looks_finished(experiment):
        return False
    quieten_lightning()
    stages = _read(experiment)
    if stages is None:
        return False
    for entry in stages:
        folder = experiment.run_dir / entry.stage.name
        record = read_record(folder)
        if record is None or record.fingerprint != entry.fingerprint:
            return False
        verify_outputs(folder, record)
    _print(experiment, stages, make_console())
    return True


def _looks_finished(experiment: Experiment) -> bool:
    """Whether each stage has left its record, and the run what is made of them; needs nothing heavy."""
    names = [stage.name for stage in experiment.stages]
    done = all(read_record(experiment.run_dir / name) is not None for name in names)
    return done and has_results(experiment.run_dir, names)


def _read(experiment: Experiment) -> list[ReadStage] | None:
    """The stages with what they depend on; None where the videos must be looked at to know them."""
    from rbft.pipeline.stage_cli import read_stages

    stages = read_stages(experiment)
    # else videos that cannot be read are left out or replaced
    known = all(e.datamodule.on_bad_video == "error" and e.datamodule.unlabelled is None for e in stages)
    return stages if known else None


def _print(experiment: Experiment, stages: list[ReadStage], console: Console) -> None:
    from rbft.stages.publish import conclude

    names = [escape(entry.stage.name) for entry in stages]
    console.print(f"[bold]{escape(experiment.name)}[/] / {escape(experiment.variant)}: {' -> '.join(names)}")
    console.print(f"run folder: {escape(str(experiment.run_dir))}\n")
    for name in names:
        console.print(f"{name}: done already")
    conclude(experiment, stages, console, publish=False)
    console.print("everything was done already; --restart does it again")
