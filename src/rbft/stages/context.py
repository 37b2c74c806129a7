"""A stage about to run: what it is given, and the steps that all kinds of stages share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

# `trainer.strategy: fsdp2` is known by it
import rbft.training.sharding  # noqa: F401
from rbft.data.dataset import Example
from rbft.runs.names import ADAPTER, TENSORBOARD
from rbft.stages.read_stage import ReadStage
from rbft.training.callbacks import GracefulStop, MovingProgress, PlainProgress
from rbft.training.checkpoint import AtomicCheckpointIO
from rbft.training.profile import StageProfile, profiled
from rbft.training.rank_watch import RankWatch


@dataclass(frozen=True)
class StageContext:
    """A stage about to run.

    Args:
        entry: the stage with its module and data.
        folder: folder of the stage.
        run_dir: folder of the run.
        console: console to print on.
        stop: callback that ends the stage where it can be continued.
        ranks: watch over the other processes.
        profile: whether to report where its time goes.
    """

    entry: ReadStage
    folder: Path
    run_dir: Path
    console: Console
    stop: GracefulStop
    ranks: RankWatch
    profile: bool = False

    @contextmanager
    def loop(self, trainer: L.Trainer) -> Iterator[None]:
        """Around a trainer's work: signals end it where it can be continued, and its profile is reported."""
        with self.stop, profiled(trainer, self.entry.stage.name, self.folder, self.console):
            yield


@dataclass(frozen=True)
class StageResult:
    """What a stage left.

    Args:
        outputs: files and folders that later stages or people rely on, relative to the stage's folder.
        summary: a few figures.
    """

    outputs: tuple[str, ...]
    summary: dict[str, Any] = field(default_factory=dict)


def make_trainer(context: StageContext, extra: Sequence[L.Callback] = (), **settings: Any) -> L.Trainer:
    """The configured trainer of a stage, with what every stage adds to it.

    Args:
        context: the stage.
        extra: callbacks of its own, after those of every stage.
        settings: arguments in place of the configured ones.

    Raises:
        ConfigError: The time of its parts is to be measured, and a profiler is configured already.
    """
    stage, console = context.entry.stage.name, context.console
    bar: L.Callback = MovingProgress(leave=True) if console.is_terminal else PlainProgress(stage)
    shown = context.entry.config["trainer"]["enable_progress_bar"] is not False
    callbacks = [*([bar] if shown else []), context.stop, *extra]
    if context.profile:
        profiler = StageProfile(context.entry.config["trainer"]["profiler"])
        settings["profiler"] = profiler
        callbacks.insert(callbacks.index(context.stop), profiler.callback)
    trainer = context.entry.make_trainer(
        callbacks,
        logger=TensorBoardLogger(save_dir=context.folder, name="", version=TENSORBOARD, default_hp_metric=False),
        default_root_dir=str(context.folder),
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
    context.ranks.look_after(trainer)
    return trainer


def set_up(
    context: StageContext, extra: Sequence[L.Callback] = (), *, keep_base: bool = False, **settings: Any
) -> L.Trainer:
    """The trainer of a stage, with the weights set that the stage starts from; arguments as for both functions."""
    trainer = make_trainer(context, extra, **settings)
    start(context, keep_base=keep_base)
    return trainer


def start(context: StageContext, *, keep_base: bool = False) -> None:
    """Set the weights that the stage starts from."""
    source = context.entry.stage.weights_from
    folder = None if source is None else context.run_dir / source / ADAPTER
    context.entry.module.start_from(folder, context.entry.author, keep_base=keep_base)


def connect(context: StageContext, trainer: L.Trainer | None, **rows: Sequence[Example]) -> None:
    """Set what the loaders of each role yield."""
    entry = context.entry
    accumulate = 1 if trainer is None else trainer.accumulate_grad_batches
    entry.datamodule.connect(entry.seed, accumulate, **rows)
