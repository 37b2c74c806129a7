"""What settings must be for a stage to run, whatever other stages there are; refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rbft.encoders.encoder import ClipPixels
from rbft.encoders.loading import KEY, KNOWN, EncoderFiles
from rbft.errors import ConfigError, DataError
from rbft.pipeline.method_requirements import require_method
from rbft.pipeline.trainer_checks import require_trainer
from rbft.vlm.loading import bare_model, load_config, weights_dtype
from rbft.vlm.quantize import require_quantizable

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage

# Of Lightning's settings those that leave batches as they are; weights in half precision are loaded so by model.dtype.
_PRECISIONS = ("None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")


def require_settings(stages: Sequence[ReadStage]) -> None:
    """Refuse what settings and splits alone show, before a model's files are read.

    Raises:
        RBFTError: Names the stage and the keys.
    """
    for entry in stages:
        # prompts refuse classes that they cannot tell apart, before a split misses videos of one of them
        entry.book.label_prompt()
        require_stage(entry)
        require_videos(entry)
    require_method(stages)


def require_stage(entry: ReadStage) -> None:
    """Refuse what the settings of a stage alone show.

    Raises:
        RBFTError: Names the stage and the keys.
    """
    _require_precision(entry)
    require_trainer(entry)
    _require_quantize(entry)
    _require_unsharded(entry)
    _require_elsewhere(entry)
    _require_swap(entry)
    _require_encoder(entry)


def require_models(stages: Sequence[ReadStage]) -> None:
    """Refuse what does not go with a stage's model, which is built without its weights to see.

    Raises:
        ConfigError: Names the stage and the keys.
    """
    for entry in stages:
        _require_scaled_gradients(entry)
    modules = [entry.module for entry in stages]
    for name, revision, tuning in dict.fromkeys((module.name, module.revision, module.tuning) for module in modules):
        with torch.device("meta"):
            tuning.apply(bare_model(load_config(name, revision)))


def _require_precision(entry: ReadStage) -> None:
    """Refuse a precision that would cast batches or weights on its own.

    Raises:
        ConfigError: Names the key and what to set instead.
    """
    precision = entry.config["trainer"]["precision"]
    if str(precision) not in _PRECISIONS:
        raise ConfigError(
            f"trainer.precision: {precision!r} is not supported; use one of {', '.join(_PRECISIONS[1:])}."
            " For weights in half precision set model.dtype, for example to bfloat16."
        )


def _require_scaled_gradients(entry: ReadStage) -> None:
    """Refuse to train what computes in float16 without a scaler: most gradients would be too small for it.

    Raises:
        ConfigError: Names the keys.
    """
    scaled = str(entry.config["trainer"]["precision"]) not in ("None", "32", "32-true")
    model = entry.module
    if entry.stage.trains and not scaled:
        config = load_config(model.name, model.revision)
        if weights_dtype(config, model.dtype_) == torch.float16:
            raise ConfigError(
                f"model.dtype: the stage {entry.stage.name!r} would train in float16, in which gradients vanish. Set "
                "trainer.precision to 16-mixed, which scales them, or model.dtype to bfloat16 or float32."
            )


def _require_quantize(entry: ReadStage) -> None:
    """Refuse weights in 4 bits where they cannot be had.

    Raises:
        ConfigError: Names the keys.
    """
    config = entry.config["trainer"]
    on_gpu = config["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    require_quantizable(entry.module.quantize, on_gpu=on_gpu)


def _require_unsharded(entry: ReadStage) -> None:
    """Refuse a stage under `trainer.strategy: fsdp2` that needs whole weights or as many passes on each process.

    Raises:
        ConfigError: Names the stage, the keys and what to set instead.
    """
    if not entry.sharded:
        return
    if entry.module.quantize != "none":
        raise ConfigError(
            "model.quantize and trainer.strategy fsdp2 exclude each other: weights in 4 bits are not "
            "sharded over processes; use trainer.strategy ddp."
        )
    if entry.stage.asks or entry.stage.kind == "answer":
        _require_direct(entry)
    if entry.stage.kind == "write":
        _require_one_attempt(entry)
    if entry.stage.trains:
        _require_plain_objective(entry)


def _require_direct(entry: ReadStage) -> None:
    """Answers after a rationale read the model differently often on each process; a strength needs weights whole."""
    answering = entry.module.answering
    if answering.writes or answering.strength != 1:
        raise ConfigError(
            f"the stage {entry.stage.name!r}: trainer.strategy fsdp2 answers directly and at full strength only, and "
            f"model.answering.mode is {answering.mode}, strength {answering.strength}. Set "
            "`trainer: {strategy: ddp}` in the layer of this stage, so that it has whole weights. A flag beats layers, "
            "so state fsdp2 in the file."
        )


def _require_one_attempt(entry: ReadStage) -> None:
    """No process could find out between attempts at writing what is missing."""
    module = entry.module
    several = len(module.writer.attempts(module.prompts.hint)) > 1
    if several and any(check.needs_model for check in module.checks):
        raise ConfigError(
            f"the stage {entry.stage.name!r}: trainer.strategy fsdp2 does not write rationales in several attempts "
            "(model.writer.regenerate, model.prompts.hint blind_then_hint) that a model's checks decide on. Use "
            "checks that need no model, or trainer.strategy ddp."
        )


def _require_plain_objective(entry: ReadStage) -> None:
    """The weights from before are not kept beside shards, and nothing is written while they are trained."""
    objective = entry.module.objective
    if objective is None or not (objective.writes or objective.needs_reference or objective.anchor > 0):
        return
    why = "has the model write while it is trained" if objective.writes else "compares with the weights from before"
    advice = "" if objective.writes or objective.needs_reference else ", or set anchor to 0"
    raise ConfigError(
        f"the stage {entry.stage.name!r}: model.objective {type(objective).__name__} {why}, which trainer.strategy "
        f"fsdp2 does not do; train with trainer.strategy ddp{advice}."
    )


def _require_elsewhere(entry: ReadStage) -> None:
    """Refuse what another program cannot write, before anything is done.

    Raises:
        ConfigError: There is no such program, or the stage starts from weights that it does not have.
    """
    vllm, source = entry.module.writer.vllm, entry.stage.weights_from
    if entry.stage.kind not in ("write", "caption_probe") or vllm is None:
        return
    vllm.python()
    if source is not None:
        raise ConfigError(
            f"model.writer.vllm writes with the model as it is published, and the stage {entry.stage.name!r} "
            f"starts from the weights of {source!r}; leave it out there."
        )


def require_videos(entry: ReadStage) -> None:
    """Refuse a stage that needs videos of a split that has none.

    Raises:
        DataError: Names the stage and what to change.
    """
    stage, splits, answering = entry.stage, entry.datamodule.splits, entry.module.answering
    if stage.kind != "test" and not splits.train:
        raise DataError(
            f"the stage {stage.name!r} needs training videos, and the data set states all of its videos as test or "
            "validation. State some for training, or test the model as it is with --method zero_shot."
        )
    if stage.tests and not splits.test:
        raise DataError(
            f"the stage {stage.name!r} needs test videos, and this split has none; "
            "give the data set a test split or lower data.shots and data.val_fraction."
        )
    if stage.trains and entry.module.selection.weights == "best" and not splits.val:
        raise DataError(
            f"the stage {stage.name!r} keeps the weights that validate best (model.selection), and "
            "there are no validation videos; set data.val_shots or data.val_fraction."
        )
    if not stage.asks:
        return
    if answering.needs_validation and not splits.val:
        raise DataError(
            f"the stage {stage.name!r} lets validation videos decide (model.answering), and there are "
            "none; set data.val_shots or data.val_fraction, or state mode, mixture_weight, gate and strength."
        )
    if entry.crossfits and entry.fold_of is None:
        raise DataError(
            f"the stage {stage.name!r}: model.answering: crossfit holds back a part of the labelled videos at a "
            "time, and a class has all of its videos in one group, or a single one. Label videos of another group, or "
            "choose on validation videos (mode or choose_on validation)."
        )


def _require_swap(entry: ReadStage) -> None:
    """Refuse to test a video's own rationale with another video where not every video has one.

    Raises:
        ConfigError: Names the stage and the keys.
    """
    name, mode = entry.stage.name, entry.module.answering.mode
    if not entry.stage.asks or not entry.module.robustness.swap:
        return
    if not entry.module.answering.writes:
        raise ConfigError(
            f"the stage {name!r}: model.robustness.swap keeps a video's own rationale, and under "
            "model.answering.mode direct none is written. Set the mode to rationale or mixture."
        )
    if mode in ("gated", "argued"):
        why = "not every video has one" if mode == "gated" else "every video has one for each class"
        raise ConfigError(
            f"the stage {name!r}: model.robustness.swap keeps a video's own rationale, and under "
            f"model.answering.mode {mode} {why}. Set the mode to rationale or mixture."
        )


def _require_encoder(entry: ReadStage) -> None:
    """Refuse a stage whose video encoder is not there, or is none; reads no weights.

    Raises:
        RBFTError: Names the key and what to do.
    """
    if entry.stage.uses_model:
        return
    folder = entry.module.encoder.folder
    if folder is None:
        raise ConfigError(
            f"the stage {entry.stage.name!r} needs a video encoder: set {KEY} to the folder of one on this machine "
            f"({KNOWN})."
        )
    ClipPixels(EncoderFiles(folder))
