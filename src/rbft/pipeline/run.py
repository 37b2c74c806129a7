"""`rbft fit`: check everything, print the plan, run the stages in order, skip what is done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning as L
import torch
import yaml
from rich.console import Console
from rich.markup import escape

from rbft.errors import StageError
from rbft.experiment import Experiment
from rbft.files import remove_unfinished, write_atomic, write_json
from rbft.pipeline.plan import print_plan
from rbft.pipeline.prepare import prepare
from rbft.pipeline.rationale_reuse import writing_once
from rbft.pipeline.resume import is_done, make_room, require_sources
from rbft.pipeline.run_files import write_run_files
from rbft.pipeline.stage_cli import StageCLI
from rbft.ranks import first_rank, wait_for_all
from rbft.runs.lock import holding_run
from rbft.runs.names import CHECKPOINTS, CONFIG, EXPERIMENT, PUBLISHED, STARTED
from rbft.runs.stage_record import StageRecord, hash_outputs, write_record
from rbft.stages.answer import answer_clips
from rbft.stages.caption_probe import caption_probe
from rbft.stages.context import Prepared, StageContext, StageResult, author_of
from rbft.stages.demonstrations import demonstrations
from rbft.stages.probe import probe
from rbft.stages.publish import conclude
from rbft.stages.score import score
from rbft.stages.train import train
from rbft.stages.write import write
from rbft.terminal import make_console, quieten
from rbft.training.callbacks import GracefulStop
from rbft.training.checkpoint import MANIFEST
from rbft.training.rank_watch import RankWatch

_RUNS: dict[str, Callable[[StageContext], StageResult]] = {
    "write": write,
    "rationale": train,
    "classification": train,
    "joint": train,
    "reasoned": train,
    "preference": train,
    "self_distil": train,
    "policy": train,
    "answer": answer_clips,
    "distil": train,
    "test": score,
    "probe": probe,
    "caption_probe": caption_probe,
    "demonstrations": demonstrations,
}


def print_help() -> None:
    """Every key of an experiment file as a flag."""
    StageCLI(["--help"])


def run(experiment: Experiment, command: Sequence[str]) -> None:
    """Run an experiment: read and check all of it, say what it costs, run the stages that are not done, publish.

    Args:
        experiment: experiment to run.
        command: The command line, for the advice on how to continue.

    Raises:
        RBFTError: The run cannot start or failed.
    """
    console = make_console()
    quieten()
    # the other processes of a run are in the first one's hands; a plan changes nothing
    alone = not experiment.dry_run and first_rank()

    def say(text: str) -> None:
        console.print(escape(text))

    with holding_run(experiment.run_dir, wait=experiment.wait, say=say) if alone else nullcontext():
        prepared = prepare(experiment, console)
        print_plan(experiment, prepared, console)
        if not experiment.dry_run:
            with _told_where_removed(experiment.run_dir):
                _run_prepared(experiment, prepared, command, console)


@contextmanager
def _told_where_removed(run_dir: Path) -> Iterator[None]:
    """A file that is missing because somebody removed the run's folder meanwhile is told so."""
    try:
        yield
    except FileNotFoundError as error:
        if (run_dir / EXPERIMENT).is_file():
            raise
        raise StageError(_removed(run_dir)) from error


def _removed(folder: Path) -> str:
    return f"{folder} was removed while the run was going; the same command makes again what is missing there."


def _run_prepared(
    experiment: Experiment, prepared: Sequence[Prepared], command: Sequence[str], console: Console
) -> None:
    """Run the stages that are not done, in order, and publish what they found."""
    ran = 0
    with RankWatch() as ranks, ranks.named():
        for entry in prepared:
            if experiment.only not in (None, entry.stage.name):
                continue
            if is_done(experiment, entry):
                console.print(f"{escape(entry.stage.name)}: done already")
                continue
            require_sources(experiment, entry, prepared)
            if ran == 0 and first_rank():
                write_run_files(experiment, prepared)
            make_room(experiment, entry, console)
            ran += 1
            with writing_once(experiment, entry, author_of(entry), console):
                # no rank looks for a checkpoint to continue from before the old one is archived
                wait_for_all()
                # another run may have written the same rationales meanwhile
                if not is_done(experiment, entry):
                    console.print(f"[bold]{escape(entry.stage.name)}[/]")
                    _run_stage(experiment, entry, command, console, ranks)
    if first_rank():
        publish = ran > 0 or not all((experiment.run_dir / name).is_file() for name in PUBLISHED)
        if publish and ran == 0:
            write_run_files(experiment, prepared)
        conclude(experiment, prepared, console, publish=publish)
        if ran == 0:
            console.print("everything was done already; --restart does it again")


def _run_stage(
    experiment: Experiment, entry: Prepared, command: Sequence[str], console: Console, ranks: RankWatch
) -> None:
    folder = experiment.run_dir / entry.stage.name
    if first_rank():
        for killed in (experiment.run_dir, folder):
            remove_unfinished(killed)
        write_json(folder / STARTED, {"inputs": entry.inputs})
        # resolved: what this stage ran with, whatever the files say later
        write_atomic(folder / CONFIG, yaml.safe_dump(entry.config, sort_keys=False, allow_unicode=True))
    L.seed_everything(int(entry.config["seed_everything"]), workers=True, verbose=False)
    start = time.monotonic()
    context = StageContext(
        entry=entry,
        folder=folder,
        run_dir=experiment.run_dir,
        console=console,
        profile=experiment.profile,
        ranks=ranks,
        stop=GracefulStop(
            folder / CHECKPOINTS / MANIFEST, again=shlex.join(part for part in command if part != "--restart")
        ),
    )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    outcome = _RUNS[entry.stage.kind](context)
    if first_rank() and not (folder / STARTED).is_file():
        raise StageError(_removed(folder))
    # of the first process; the others do the same
    memory = {"gpu_memory_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    if first_rank():
        record = StageRecord(
            stage=entry.stage.name,
            kind=entry.stage.kind,
            fingerprint=entry.fingerprint,
            inputs=entry.inputs,
            outputs=hash_outputs(folder, outcome.outputs),
            seconds=round(time.monotonic() - start, 1),
            summary=outcome.summary | memory,
        )
        write_record(folder, record)
    # no rank looks for this stage's output before it is marked
    wait_for_all()
    entry.module.unload()
