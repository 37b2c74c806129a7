"""A stage about to run: what it is given, and the steps that all kinds of stages share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.encoders.loading import EncoderFiles
from rbft.experiment import Stage
from rbft.runs.names import ADAPTER
from rbft.stages.read_stage import ReadStage
from rbft.training.callbacks import GracefulStop
from rbft.training.module import VLMFineTuner
from rbft.training.profile import profiled
from rbft.training.rank_watch import RankWatch
from rbft.training.trainer import stage_trainer
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Prepared(ReadStage):
    """A stage whose configuration was read and checked.

    Args:
        make_trainer: function that makes the configured trainer, with callbacks and settings added.
        config: resolved configuration.
        processor: the model's processor.
        weights_source: stage whose weights it starts from; None for the base model.
        rationale_source: stage whose rationales it uses.
        answer_source: stage whose soft labels it learns.
    """

    make_trainer: Callable[..., L.Trainer]
    config: dict[str, Any]
    processor: ClipProcessor
    weights_source: Prepared | None = None
    rationale_source: Prepared | None = None
    answer_source: Prepared | None = None

    @property
    def trained_by(self) -> tuple[Prepared, ...]:
        """The training stages whose weights it builds on, in order."""
        source = self.weights_source
        return () if source is None else (*source.trained_by, source)

    @property
    def _learnt_from(self) -> Prepared | None:
        """The stage that writes its rationales; one that only matches their number of tokens learns none."""
        return None if self.stage.rationale_epochs else self.rationale_source

    @property
    def rationale_samples(self) -> int:
        """Rationales of each video that it trains on; 0 where it needs none."""
        return 0 if self._learnt_from is None else self._learnt_from.module.writer.samples

    @property
    def unlabelled(self) -> int:
        """Unlabelled videos that it writes about, answers or learns of."""
        if self.stage.kind in ("write", "answer"):
            return len(self.datamodule.unlabelled_videos)
        source = self._learnt_from or self.answer_source
        return 0 if source is None else source.unlabelled

    @property
    def views(self) -> int:
        """Clips of each video that it answers, or learns soft labels of."""
        return (self.answer_source or self).stage.views


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

    entry: Prepared
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
    """The trainer of a stage, with callbacks of its own and `settings` in place of the configured ones."""
    make = partial(context.entry.make_trainer, **settings)
    profiler, stage = context.entry.config["trainer"]["profiler"], context.entry.stage.name
    callbacks = [context.stop, *extra]
    trainer = stage_trainer(make, profiler, stage, context.folder, context.console, callbacks, profile=context.profile)
    context.ranks.look_after(trainer)
    return trainer


def author_of(entry: Prepared) -> str:
    """The model with the weights that a stage starts from, as its rationales name it."""
    source = entry.stage.weights_from
    revision = f"@{entry.module.revision}" if entry.module.revision else ""
    return entry.module.name + revision + ("" if source is None else f"+{source}:{entry.inputs['weights']}")


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
    context.entry.module.start_from(folder, author_of(context.entry), keep_base=keep_base)


def connect(context: StageContext, trainer: L.Trainer | None, **rows: Sequence[Example]) -> None:
    """Set what the loaders of each role yield."""
    entry = context.entry
    accumulate = 1 if trainer is None else trainer.accumulate_grad_batches
    entry.datamodule.connect(int(entry.config["seed_everything"]), accumulate, **rows)


def settle_clips(stage: Stage, module: VLMFineTuner, data: VideoDataModule, processor: ClipProcessor) -> None:
    """Have the data of a stage read clips as what looks at them wants them: the model, or an encoder beside it.

    Args:
        stage: the stage.
        module: its settings.
        data: its videos.
        processor: processor of the model.
    """
    if stage.kind == "encoder_probe" and module.encoder.folder is not None:
        data.use_frames(EncoderFiles(module.encoder.folder).frames)
    else:
        data.use_processor(processor)
