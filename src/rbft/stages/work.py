"""A stage about to run: what it is given, and the steps that all kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from rich.console import Console

from rbft.data.dataset import Example
from rbft.training.callbacks import GracefulStop
from rbft.training.rank_watch import RankWatch
from rbft.training.trainer import stage_trainer

if TYPE_CHECKING:
    from rbft.preparation import Prepared


@dataclass(frozen=True)
class Work:
    """A stage about to run.

    Args:
        entry: The stage with its module and data.
        folder: Its folder.
        run_dir: The run's folder.
        console: Where to speak.
        stop: Ends it where it can be continued.
        ranks: Looks after the other processes.
        profile: Whether to report where its time goes.
    """

    entry: Prepared
    folder: Path
    run_dir: Path
    console: Console
    stop: GracefulStop
    ranks: RankWatch
    profile: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a stage left.

    Args:
        outputs: Files and folders that later stages or people rely on, relative to the stage's folder.
        summary: A few figures.
    """

    outputs: tuple[str, ...]
    summary: dict[str, Any] = field(default_factory=dict)


def make_trainer(work: Work, extra: Sequence[L.Callback] = (), **settings: Any) -> L.Trainer:
    """The trainer of a stage, with callbacks of its own and `settings` in the place of the configuration's."""
    make = partial(work.entry.cli.make_trainer, **settings)
    profiler, stage = work.entry.config["trainer"]["profiler"], work.entry.stage.name
    callbacks = [work.stop, *extra]
    trainer = stage_trainer(make, profiler, stage, work.folder, work.console, callbacks, profile=work.profile)
    work.ranks.look_after(trainer)
    return trainer


def author_of(entry: Prepared) -> str:
    """The model with the weights that a stage starts from, as its rationales name it."""
    source = entry.stage.weights_from
    revision = f"@{entry.module.revision}" if entry.module.revision else ""
    return entry.module.name + revision + ("" if source is None else f"+{source}:{entry.inputs['weights']}")


def start(work: Work, *, keep_base: bool = False) -> None:
    """Say which weights the stage starts from."""
    source = work.entry.stage.weights_from
    folder = None if source is None else work.run_dir / source / "adapter"
    work.entry.module.start_from(folder, author_of(work.entry), keep_base=keep_base)


def connect(work: Work, trainer: L.Trainer | None, **rows: Sequence[Example]) -> None:
    """Say what the loaders of each role yield."""
    entry = work.entry
    accumulate = 1 if trainer is None else trainer.accumulate_grad_batches
    entry.datamodule.connect(int(entry.config["seed_everything"]), accumulate, **rows)
