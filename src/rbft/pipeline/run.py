"""`rbft fit`: check everything, print the plan, run the stages in order, skip what is done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import torch
import yaml
from rich.console import Console
from rich.markup import escape

from rbft.errors import StageError
from rbft.experiment import Experiment
from rbft.files import archive, read_json, remove_unfinished, write_atomic, write_json
from rbft.pipeline.plan import print_plan
from rbft.pipeline.prepare import prepare
from rbft.pipeline.reuse import writing_once
from rbft.pipeline.run_files import write_run_files
from rbft.pipeline.stage_cli import StageCLI
from rbft.ranks import first_rank, wait_for_all
from rbft.runs.lock import holding_run
from rbft.runs.names import CHECKPOINTS, CONFIG, PUBLISHED, STARTED
from rbft.runs.stage_record import (
    StageRecord,
    changed_keys,
    fingerprint,
    hash_outputs,
    read_record,
    verify_outputs,
    write_record,
)
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


def _is_done(experiment: Experiment, entry: Prepared) -> bool:
    """Whether a stage's output is there, unharmed, and made from the very same inputs."""
    folder = experiment.run_dir / entry.stage.name
    record = read_record(folder)
    if experiment.restart or record is None or record.fingerprint != entry.fingerprint:
        return False
    verify_outputs(folder, record)
    return True


def _clear(experiment: Experiment, entry: Prepared, console: Console) -> None:
    """Set aside what a changed input or --restart made old; keep what an interrupted run can go on from."""
    folder, name = experiment.run_dir / entry.stage.name, entry.stage.name
    if not first_rank() or not folder.exists():
        return
    record = read_record(folder)
    started = read_json(folder / STARTED) if (folder / STARTED).is_file() else None
    inputs = record.inputs if record is not None else started.get("inputs") if isinstance(started, dict) else None
    if experiment.restart:
        reason = "starting again"
    elif not isinstance(inputs, dict):
        reason = "the folder holds something that no stage of this version left"
    elif fingerprint(inputs) == entry.fingerprint:
        console.print(f"{escape(name)}: continuing where it stopped")
        return
    else:
        reason = f"{', '.join(changed_keys(inputs, entry.inputs)) or 'the version'} changed; running again"
    console.print(f"{escape(name)}: {escape(reason)}; what was there is now {escape(str(archive(folder)))}")


def _require(experiment: Experiment, entry: Prepared, finished: dict[str, Prepared]) -> None:
    """Refuse to start a stage whose inputs are not there or are not this experiment's.

    Raises:
        StageError: An earlier stage is missing; names it.
    """
    stage = entry.stage
    sources = ((stage.weights_from, "weights"), (stage.rationales_from, "rationales"), (stage.answers_from, "answers"))
    for source, what in sources:
        if source is None:
            continue
        folder = experiment.run_dir / source
        record = read_record(folder)
        if record is None:
            raise StageError(
                f"the stage {entry.stage.name!r} starts from the {what} of the stage {source!r}, and there are none in "
                f"{folder}. Run `--stage {source}` first, or choose a method without it (--method sft trains directly)."
            )
        if record.fingerprint != finished[source].fingerprint:
            changed = ", ".join(changed_keys(record.inputs, finished[source].inputs)) or "the version"
            raise StageError(
                f"the {what} in {folder} were made with other settings ({changed}); "
                f"run `--stage {source}` again first, or restore the settings."
            )
        verify_outputs(folder, record)


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


def run(experiment: Experiment, command: Sequence[str]) -> None:
    """Run an experiment.

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
        _run(experiment, command, console)


def _run(experiment: Experiment, command: Sequence[str], console: Console) -> None:
    prepared = prepare(experiment, console)
    print_plan(experiment, prepared, console)
    if experiment.dry_run:
        return
    try:
        ran = _carry_out(experiment, prepared, command, console)
    except FileNotFoundError as error:
        if (experiment.run_dir / "experiment.yaml").is_file():
            raise
        raise StageError(_removed(experiment.run_dir)) from error
    if ran == 0 and first_rank():
        console.print("everything was done already; --restart does it again")


def _removed(folder: Path) -> str:
    return f"{folder} was removed while the run was going; the same command makes again what is missing there."


def _carry_out(experiment: Experiment, prepared: Sequence[Prepared], command: Sequence[str], console: Console) -> int:
    """Run the stages and publish what they found; returns how many were run."""
    with RankWatch() as ranks, ranks.named():
        ran = _run_stages(experiment, prepared, command, console, ranks)
    if first_rank():
        publish = ran > 0 or not all((experiment.run_dir / name).is_file() for name in PUBLISHED)
        if publish and ran == 0:
            write_run_files(experiment, prepared)
        conclude(experiment, prepared, console, publish=publish)
    return ran


def _run_stages(
    experiment: Experiment, prepared: Sequence[Prepared], command: Sequence[str], console: Console, ranks: RankWatch
) -> int:
    """Run the stages that are not done; returns how many were run."""
    by_name = {entry.stage.name: entry for entry in prepared}
    chosen = [entry for entry in prepared if experiment.only in (None, entry.stage.name)]
    ran = 0
    for entry in chosen:
        if _is_done(experiment, entry):
            console.print(f"{escape(entry.stage.name)}: done already")
            continue
        _require(experiment, entry, by_name)
        if ran == 0 and first_rank():
            write_run_files(experiment, prepared)
        _clear(experiment, entry, console)
        ran += 1
        with writing_once(experiment, entry, author_of(entry), console):
            # no rank looks for a checkpoint to continue from before the old one is archived
            wait_for_all()
            if _is_done(experiment, entry):
                continue
            console.print(f"[bold]{escape(entry.stage.name)}[/]")
            _run_stage(experiment, entry, command, console, ranks)
    return ran
