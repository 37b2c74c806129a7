"""A stage as it was read: its settings, its module and its data, before anything of it is loaded or run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rbft.data.fingerprint import records_fingerprint
from rbft.data.prompt_templates import PromptBook
from rbft.data.sampler import limited_batches
from rbft.encoders.loading import EncoderFiles
from rbft.errors import ConfigError
from rbft.evaluation.folds import video_folds
from rbft.runs.stage_record import fingerprint
from rbft.stages.inputs import stage_inputs
from rbft.training.optim import planned_steps
from rbft.vlm.sharded import shards

if TYPE_CHECKING:
    import lightning as L
    import numpy as np
    from numpy.typing import NDArray

    from rbft.data.datamodule import VideoDataModule
    from rbft.experiment import Stage
    from rbft.training.module import VLMFineTuner
    from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class ReadStage:
    """A stage of an experiment, the one value that checks, the plan, the estimate and the run itself work on.

    Args:
        stage: the stage.
        module: its LightningModule.
        datamodule: its LightningDataModule.
        config: resolved configuration, as plain values.
        make_trainer: function that makes the configured trainer, with callbacks and settings added.
        before: the stages before it, by name.
    """

    stage: Stage
    module: VLMFineTuner
    datamodule: VideoDataModule
    config: dict[str, Any]
    make_trainer: Callable[..., L.Trainer]
    before: Mapping[str, ReadStage]

    @cached_property
    def book(self) -> PromptBook:
        """The experiment's prompts for the data set's classes.

        Raises:
            RBFTError: Prompts cannot name the classes, or tell them apart.
        """
        return PromptBook(self.module.prompts, self.datamodule.labels)

    @property
    def seed(self) -> int:
        """Seed of the stage."""
        return int(self.config["seed_everything"])

    def connect(self, processor: ClipProcessor) -> None:
        """Give module and data the model's processor.

        Clips are read as what looks at them wants them: the model, or a video encoder beside it.

        Args:
            processor: processor of the model.

        Raises:
            RBFTError: No clip keeps to the bound on visual tokens, or the encoder's files cannot be read.
        """
        self.module.connect(processor, self.book, self.seed)
        if not self.stage.uses_model and self.module.encoder.folder is not None:
            self.datamodule.use_frames(EncoderFiles(self.module.encoder.folder).frames)
        else:
            self.datamodule.use_processor(processor)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that its result depends on, as plain values; videos that cannot be read must be known before."""
        done = {name: earlier.fingerprint for name, earlier in self.before.items()}
        return stage_inputs(self.stage, self.module, self.datamodule, self.config, done)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that its result depends on."""
        return fingerprint(self.inputs)

    @property
    def author(self) -> str:
        """The model with the weights that it starts from, as its rationales name it."""
        source = self.stage.weights_from
        revision = f"@{self.module.revision}" if self.module.revision else ""
        return self.module.name + revision + ("" if source is None else f"+{source}:{self.inputs['weights']}")

    @cached_property
    def data_set(self) -> str:
        """Hash of all videos that its data set lists, whatever splits and draws take of them."""
        return records_fingerprint(self.datamodule.root, self.datamodule.records)

    @property
    def mixed(self) -> bool:
        """Whether it computes in half precision beside weights of another."""
        return str(self.config["trainer"]["precision"]).endswith("mixed")

    @property
    def sharded(self) -> bool:
        """Whether its weights are sharded over processes."""
        return shards(self.config["trainer"]["strategy"])

    @property
    def keeps_states(self) -> bool:
        """Whether it reads what leaves frozen layers of the language model from where it is kept."""
        objective = self.module.objective
        # of texts that are written in a step nothing is there in the next
        writes = objective is not None and objective.writes
        return self.stage.trains and self.datamodule.may_keep_states and not self.sharded and not writes

    @property
    def writer(self) -> ReadStage | None:
        """The stage whose rationales or soft labels it uses."""
        return self._source(self.stage.rationales_from or self.stage.answers_from)

    @property
    def trained_by(self) -> tuple[ReadStage, ...]:
        """The training stages whose weights it builds on, in order."""
        source = self._source(self.stage.weights_from)
        return () if source is None else (*source.trained_by, source)

    @property
    def epochs(self) -> int:
        """Passes over its rows, where it trains and nothing else ends it before; -1 where steps alone end it."""
        trainer = self.config["trainer"]
        said = trainer["max_epochs"]
        return int(said) if said is not None else -1 if trainer["max_steps"] >= 0 else 1

    def rows_a_step(self, processes: int) -> int:
        """Clips that an optimiser step learns from, all processes together."""
        return self.datamodule.batch_size * processes * int(self.config["trainer"]["accumulate_grad_batches"])

    def batches(self, rows: int, processes: int) -> int:
        """Its micro-batches of an epoch on each process, where it trains.

        Args:
            rows: clips of an epoch.
            processes: number of processes that work together.
        """
        trainer = self.config["trainer"]
        steps = -(-rows // self.rows_a_step(processes))
        return limited_batches(steps * int(trainer["accumulate_grad_batches"]), trainer["limit_train_batches"])

    def steps(self, rows: int, processes: int, epochs: int | None = None) -> int:
        """Its optimiser steps, where it trains.

        Args:
            rows: clips of an epoch.
            processes: number of processes that work together.
            epochs: passes over them; None for those of the settings.
        """
        trainer = self.config["trainer"]
        steps = -(-self.batches(rows, processes) // int(trainer["accumulate_grad_batches"]))
        return planned_steps(steps, self.epochs if epochs is None else epochs, int(trainer["max_steps"]))

    def validations(self, rows: int, processes: int, epochs: float) -> float:
        """How often the validation videos are answered while it trains, roughly.

        Args:
            rows: clips of an epoch.
            processes: number of processes that work together.
            epochs: passes over them.
        """
        trainer = self.config["trainer"]
        interval, every = trainer["val_check_interval"], trainer["check_val_every_n_epoch"] or 1
        if trainer["limit_val_batches"] == 0:
            return 0.0
        if isinstance(interval, int):
            return epochs * self.batches(rows, processes) / max(1, interval) / every
        # one of so many minutes counts as one of each epoch
        return epochs / every / (interval if isinstance(interval, float) and interval > 0 else 1.0)

    def require_interval(self, batches: int) -> None:
        """Refuse to validate after more batches than an epoch has, which would be never.

        Args:
            batches: micro-batches of an epoch on each process, at most.

        Raises:
            ConfigError: Names the stage and the keys.
        """
        trainer = self.config["trainer"]
        interval, every = trainer["val_check_interval"], trainer["check_val_every_n_epoch"]
        validates = self.datamodule.splits.val and every is not None and trainer["limit_val_batches"] != 0
        if validates and isinstance(interval, int) and interval > batches:
            raise ConfigError(
                f"trainer.val_check_interval: the stage {self.stage.name!r} has {batches} batches an epoch, so it "
                f"cannot validate after every {interval}. Set at most {batches}, or trainer.check_val_every_n_epoch to "
                "null: then batches are counted over all epochs."
            )

    @property
    def rationale_samples(self) -> int:
        """Rationales of each video that it trains on; 0 where it needs none."""
        return 0 if self._learnt_from is None else self._learnt_from.module.writer.samples

    @property
    def unlabelled(self) -> int:
        """Unlabelled videos that it writes about, answers or learns of."""
        if self.stage.kind in ("write", "answer"):
            return len(self.datamodule.unlabelled_videos)
        source = self._learnt_from or self._source(self.stage.answers_from)
        return 0 if source is None else source.unlabelled

    @property
    def views(self) -> int:
        """Clips of each video that it answers, or learns soft labels of."""
        return (self._source(self.stage.answers_from) or self).stage.views

    @property
    def crossfits(self) -> bool:
        """Whether labelled videos that train decide how it answers, out of fold."""
        return self.stage.asks and self.module.answering.crossfits

    @property
    def fold_of(self) -> NDArray[np.int64] | None:
        """Fold that each labelled video is answered out of, where it cross-fits; None where they cannot be folded.

        Not kept: the labelled videos change when bad ones are taken out.
        """
        return video_folds(self.datamodule.splits.train, self.datamodule.labels)

    @property
    def folds(self) -> int:
        """How many times the training stages before it are run again, each without a part of the labelled videos."""
        if not self.crossfits or self.stage.weights_from is None or self.fold_of is None:
            return 0
        return int(self.fold_of.max()) + 1

    @property
    def _learnt_from(self) -> ReadStage | None:
        """The stage that writes its rationales; one that only matches their number of tokens learns none."""
        return None if self.stage.rationale_epochs else self._source(self.stage.rationales_from)

    def _source(self, name: str | None) -> ReadStage | None:
        return None if name is None else self.before[name]
