"""`rbft fit`: check everything, print the plan, run the stages in order, skip what is done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import lightning as L
import torch
from rich.console import Console
from rich.markup import escape

from rbft.experiment import Experiment
from rbft.pipeline.plan import print_plan
from rbft.pipeline.prepare import prepare
from rbft.pipeline.rationale_reuse import writing_once
from rbft.pipeline.resume import StageFolder, noticing_removal
from rbft.pipeline.run_files import write_run_files
from rbft.pipeline.stage_cli import StageCLI
from rbft.ranks import first_rank, wait_for_all
from rbft.runs.lock import holding_run
from rbft.runs.names import CHECKPOINTS
from rbft.runs.run_folder import has_results
from rbft.stages.answer import answer_clips
from rbft.stages.caption_probe import caption_probe
from rbft.stages.combine import combine
from rbft.stages.context import StageContext, StageResult
from rbft.stages.demonstrations import demonstrations
from rbft.stages.encoder_probe import encoder_probe
from rbft.stages.probe import probe
from rbft.stages.publish import conclude
from rbft.stages.rationale_probe import rationale_probe
from rbft.stages.read_stage import ReadStage
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
    "encoder_probe": encoder_probe,
    "demonstrations": demonstrations,
    "rationale_probe": rationale_probe,
    "combine": combine,
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
        prepared = prepare(experiment, console, here=not experiment.dry_run)
        print_plan(experiment, prepared, console)
        if not experiment.dry_run:
            with noticing_removal(experiment.run_dir):
                _run_prepared(experiment, prepared, command, console)


def _run_prepared(
    experiment: Experiment, prepared: Sequence[ReadStage], command: Sequence[str], console: Console
) -> None:
    """Run the stages that are not done, in order, and publish what they found."""
    ran = 0
    with RankWatch() as ranks, ranks.named():
        for entry in prepared:
            if experiment.only not in (None, entry.stage.name):
                continue
            folder = StageFolder(experiment, entry)
            if folder.is_done():
                console.print(f"{escape(entry.stage.name)}: done already")
                continue
            folder.require_sources(prepared)
            if ran == 0 and first_rank():
                write_run_files(experiment, prepared)
            folder.make_room(console)
            ran += 1
            with writing_once(experiment, entry, console):
                # no rank looks for a checkpoint to continue from before the old one is archived
                wait_for_all()
                # another run may have written the same rationales meanwhile
                if not folder.is_done():
                    console.print(f"[bold]{escape(entry.stage.name)}[/]")
                    _run_stage(folder, command, console, ranks)
    if first_rank():
        # stages taken out of an experiment leave results that are those of none of its others
        names = [stage.name for stage in experiment.stages]
        publish = ran > 0 or not has_results(experiment.run_dir, names)
        if publish and ran == 0:
            write_run_files(experiment, prepared)
        conclude(experiment, prepared, console, publish=publish)
        if ran == 0:
            console.print("everything was done already; --restart does it again")


def _run_stage(folder: StageFolder, command: Sequence[str], console: Console, ranks: RankWatch) -> None:
    experiment, entry = folder.experiment, folder.entry
    folder.begin()
    L.seed_everything(entry.seed, workers=True, verbose=False)
    start = time.monotonic()
    again = shlex.join(part for part in command if part != "--restart")
    context = StageContext(
        entry=entry,
        folder=folder.path,
        run_dir=experiment.run_dir,
        console=console,
        profile=experiment.profile,
        ranks=ranks,
        stop=GracefulStop(folder.path / CHECKPOINTS / MANIFEST, again=again),
    )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    result = _RUNS[entry.stage.kind](context)
    # of the first process; the others do the same
    memory = {"gpu_memory_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    folder.finish(result, time.monotonic() - start, memory)
    # no rank looks for this stage's output before it is marked
    wait_for_all()
    entry.module.unload()
