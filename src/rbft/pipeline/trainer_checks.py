"""Settings of Lightning's Trainer that a stage cannot run with; refused before a video is read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import StrategyRegistry

# `trainer.strategy: fsdp2` is known by it
import rbft.training.sharding  # noqa: F401
from rbft.errors import ConfigError
from rbft.training.checkpoint import AtomicCheckpointIO

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage

# settings that leave a part of the work undone, with what that would pass for
_LESS = {
    "fast_dev_run": "it would leave the weights of a few batches as those of the whole training. For a first try use "
    "--dry_run, or a small run: --data.shots 1 --trainer.max_steps 2, with a --variant of its own",
    "overfit_batches": "it would leave the weights of a few batches as those of the whole training. To train on few "
    "videos set data.shots, to leave out batches trainer.limit_train_batches",
    "barebones": "a run logs and saves. Leave it out",
}
_PARTS = {
    "limit_test_batches": "the figures of a part of the test videos would pass for those of all. Leave it out",
    "limit_predict_batches": "every training video is written about. Leave it out, or lower data.shots",
}
# of the machine, which need not be the one that the settings are looked at on
_MACHINE = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
# of the whole process, not of the trainer that is made
_GLOBAL = {"deterministic": None, "benchmark": None}
_PLAIN = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}


def require_trainer(entry: ReadStage) -> None:
    """Refuse what no machine could run a stage with.

    Raises:
        ConfigError: Names the stage and the key.
    """
    trainer = entry.config["trainer"]
    for key, why in _LESS.items():
        if trainer[key]:
            raise ConfigError(f"trainer.{key}: {why}.")
    for key, why in _PARTS.items():
        if not _is_whole(trainer[key]):
            raise ConfigError(f"trainer.{key}: {why}.")
    _require_all_validated(entry)
    _require_strategy(trainer["strategy"])
    for key, least in (("accumulate_grad_batches", 1), ("check_val_every_n_epoch", 1)):
        if trainer[key] is not None and trainer[key] < least:
            raise ConfigError(f"trainer.{key}: {trainer[key]} must be at least {least}.")
    if entry.stage.trains:
        _require_end(entry)
        videos = len(entry.datamodule.splits.train) + entry.unlabelled
        # of one process, which has the most
        entry.require_interval(entry.batches(videos * entry.views, 1))
    made = _try_to_make(entry, _MACHINE)
    if entry.stage.trains:
        for callback in made.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.strict:
                _require_logged(entry, callback.monitor)


def require_machine(entry: ReadStage) -> None:
    """Refuse a trainer that this machine cannot have, such as one of GPUs that it has not.

    Raises:
        ConfigError: Names the stage and says what Lightning says.
    """
    _try_to_make(entry, {})


def _require_all_validated(entry: ReadStage) -> None:
    """Refuse to choose by a part of the validation videos; none at all are no part."""
    limit, module = entry.config["trainer"]["limit_val_batches"], entry.module
    if _is_whole(limit):
        return
    if limit != 0:
        raise ConfigError(
            "trainer.limit_val_batches: the figures of a part of the validation videos would pass for those of all. "
            "Leave it out, lower data.val_shots or data.val_fraction, or validate less often with "
            "trainer.check_val_every_n_epoch."
        )
    chooses = entry.stage.trains and module.selection.weights == "best"
    if chooses or (entry.stage.asks and module.answering.needs_validation):
        raise ConfigError(
            f"trainer.limit_val_batches: 0 leaves the stage {entry.stage.name!r} without the validation videos that "
            "choose (model.selection or model.answering). Leave it out."
        )


def _is_whole(limit: float | None) -> bool:
    """Whether a number of batches, or a fraction of them, means all; 1 is one batch, 1.0 all of them."""
    return limit is None or (isinstance(limit, float) and limit == 1)


def _require_strategy(strategy: object) -> None:
    """Refuse strategies whose trained weights would not be where a stage looks for them.

    Raises:
        ConfigError: Names what to set instead.
    """
    name: object = strategy
    arguments: Mapping[str, Any] = {}
    if isinstance(strategy, Mapping):
        name, arguments = strategy.get("class_path"), strategy.get("init_args") or {}
    leaf = str(name).rpartition(".")[2]
    start = str(arguments.get("start_method") or "popen")
    within = re.match(r"ddp_(spawn|fork|notebook)", leaf) or (leaf == "DDPStrategy" and start != "popen")
    if within:
        raise ConfigError(
            f"trainer.strategy: {leaf} trains in processes that keep the weights for themselves; use ddp."
        )
    if re.match(r"(fsdp(?!2)|deepspeed|xla|FSDPStrategy|DeepSpeedStrategy|XLA)", leaf):
        raise ConfigError(
            f"trainer.strategy: {leaf} is not supported; use ddp, or fsdp2 for models that one device has no room for."
        )
    if isinstance(strategy, str) and strategy != "auto" and strategy not in StrategyRegistry:
        raise ConfigError(f"trainer.strategy: {strategy!r} is none; use auto, ddp or fsdp2.")


def _require_end(entry: ReadStage) -> None:
    """Refuse a training whose number of steps nobody knows: learning rates go down over all of them."""
    trainer, name = entry.config["trainer"], entry.stage.name
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if steps < 0 and (epochs == -1 or (epochs is None and trainer["max_time"] is not None)):
        raise ConfigError(
            f"trainer.max_epochs: the stage {name!r} needs a last step, as its learning rate goes down until then; set "
            "trainer.max_epochs or trainer.max_steps to the most that it is to train. It may end earlier by "
            "trainer.max_time or EarlyStopping."
        )


def _require_logged(entry: ReadStage, figure: str) -> None:
    """Refuse to stop early by a figure that a training stage does not log."""
    objective = entry.module.objective
    trained = ["train/loss", *(f"train/{name}" for name in (objective.figures if objective is not None else ()))]
    validated = ["val/nll", "val/accuracy", "val/macro_f1"]
    problem = f"trainer.callbacks: EarlyStopping looks at {figure!r}, and the stage {entry.stage.name!r}"
    if figure not in (*trained, *validated) and not figure.startswith("lr-"):
        raise ConfigError(f"{problem} logs {', '.join([*trained, *validated])}.")
    none = not entry.datamodule.splits.val or entry.config["trainer"]["limit_val_batches"] == 0
    if figure in validated and none:
        raise ConfigError(
            f"{problem} has no validation videos; set data.val_shots or data.val_fraction, or look at train/loss."
        )


def _try_to_make(entry: ReadStage, settings: Mapping[str, Any]) -> L.Trainer:
    """Make the trainer, which says what is wrong with its settings."""
    try:
        with warnings.catch_warnings():
            # those of the one that runs are enough
            warnings.simplefilter("ignore")
            return entry.make_trainer([], plugins=[AtomicCheckpointIO()], **_PLAIN, **_GLOBAL, **settings)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()
        raise ConfigError(f"trainer: the stage {entry.stage.name!r} cannot have these settings. {reason}") from error
