"""Rationales that another run of the experiment wrote from the very same inputs, taken instead of written again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from rbft.errors import RBFTError
from rbft.experiment import Experiment
from rbft.files import write_atomic
from rbft.ranks import can_agree, first_rank, grouped
from rbft.rationales.store import read_rationales
from rbft.runs.names import CONFIG, RATIONALES, TENSORBOARD
from rbft.runs.stage_record import StageRecord, hash_outputs, read_record, write_record
from rbft.stages.read_stage import ReadStage


@contextmanager
def writing_once(experiment: Experiment, entry: ReadStage, console: Console) -> Iterator[None]:
    """Around a write stage that is to run: of several runs at once one writes, and the others take what it wrote.

    Inside, the stage is finished if rationales were taken. They are those of a finished stage with the same
    fingerprint (model, prompts, videos, frames, settings, seed), written by the model itself and not imported, and
    their hashes are verified. `--restart` and a stage that has begun take none.

    Args:
        experiment: Whose other runs are looked at.
        entry: The stage; of another kind than `write`, nothing is done.
        console: console to print on.
    """
    if entry.stage.kind != "write" or not first_rank() or not can_agree():
        yield
        return
    folder = experiment.run_dir / entry.stage.name
    experiment.run_dir.parents[1].mkdir(parents=True, exist_ok=True)
    lock = FileLock(experiment.run_dir.parents[1] / f".{entry.fingerprint}.writing.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # processes that wait for this one in a collective would give up
        if not grouped():
            console.print(f"{escape(entry.stage.name)}: another run is writing these rationales; waiting for it")
            lock.acquire()
    try:
        if not experiment.restart and not folder.exists():
            _take(experiment, entry, console)
        yield
    finally:
        lock.release()


def _take(experiment: Experiment, entry: ReadStage, console: Console) -> None:
    """Copy the rationales of a finished run, if there is one that has them."""
    for marker in sorted(experiment.run_dir.parents[1].glob(f"*/{experiment.run_dir.name}/*/stage.json")):
        source = marker.parent
        if ".old-" in source.name:
            continue
        try:
            record = read_record(source)
            if record is None or record.kind != "write" or record.fingerprint != entry.fingerprint:
                continue
            authors = {rationale.model for rationale in read_rationales(source / RATIONALES)}
        except RBFTError as error:
            # another run's trouble; this one can write its own
            console.print(f"{escape(entry.stage.name)}: not taken from {escape(str(source))}: {escape(str(error))}")
            continue
        if authors != {entry.author}:
            continue
        if _copy(source, record, experiment.run_dir / entry.stage.name, entry):
            console.print(f"{escape(entry.stage.name)}: rationales from a finished run, {escape(str(source))}")
            return
        console.print(f"{escape(entry.stage.name)}: not taken from {escape(str(source))}: they were changed there")


def _copy(source: Path, record: StageRecord, folder: Path, entry: ReadStage) -> bool:
    """Copy a finished stage; False if its output is not what it wrote."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a copy that was killed
    part.mkdir(parents=True)
    for name in record.outputs:
        if not (source / name).is_file():
            break
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, part / name)
    else:
        if hash_outputs(part, list(record.outputs)) == record.outputs:
            if (source / TENSORBOARD).is_dir():
                shutil.copytree(source / TENSORBOARD, part / TENSORBOARD)
            write_atomic(part / CONFIG, yaml.safe_dump(entry.config, sort_keys=False, allow_unicode=True))
            summary = record.summary | {"taken_from": str(source)}
            write_record(part, dataclasses.replace(record, stage=entry.stage.name, seconds=0.0, summary=summary))
            part.rename(folder)
            return True
    shutil.rmtree(part)
    return False
