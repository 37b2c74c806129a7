"""The trainer of a stage: the configured one, with what every stage adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

# `trainer.strategy: fsdp2` is known by it
import rbft.training.sharding  # noqa: F401
from rbft.runs.names import TENSORBOARD
from rbft.training.callbacks import PlainProgress
from rbft.training.checkpoint import AtomicCheckpointIO
from rbft.training.profile import StageProfile


class _Bar(RichProgressBar):
    """As of Lightning, without the version of the logger, which is the same for every run."""

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        return {key: value for key, value in super().get_metrics(*args).items() if key != "v_num"}


def stage_trainer(
    make: Callable[..., L.Trainer],
    configured_profiler: object,
    stage: str,
    folder: Path,
    console: Console,
    callbacks: Sequence[L.Callback],
    *,
    profile: bool,
) -> L.Trainer:
    """Make the trainer of a stage.

    Args:
        make: function that makes the configured trainer, with callbacks and settings added.
        configured_profiler: `trainer.profiler` of the configuration.
        stage: name of the stage.
        folder: folder of the stage.
        console: console to print on.
        callbacks: callbacks of the stage.
        profile: whether to measure the time of its parts; see `rbft.training.profile.profiled`.

    Raises:
        ConfigError: A profiler is configured already.
    """
    progress: L.Callback = _Bar(leave=True) if console.is_terminal else PlainProgress(stage)
    settings: dict[str, object] = {}
    if profile:
        profiler = StageProfile(configured_profiler)
        settings, callbacks = {"profiler": profiler}, [profiler.callback, *callbacks]
    return make(
        callbacks=[progress, *callbacks],
        logger=TensorBoardLogger(save_dir=folder, name="", version=TENSORBOARD, default_hp_metric=False),
        default_root_dir=str(folder),
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
