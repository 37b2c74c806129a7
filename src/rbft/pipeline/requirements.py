"""What settings must be for a stage to run, alone and after the stages before it; refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar

from rbft.encoders.encoder import ClipPixels
from rbft.encoders.loading import KEY, KNOWN, EncoderFiles
from rbft.errors import ConfigError, DataError
from rbft.evaluation.folds import video_folds
from rbft.experiment import ASKING_KINDS
from rbft.pipeline.choice_requirements import require_labelled, require_texts, require_unseen
from rbft.pipeline.sharding_requirements import require_unsharded
from rbft.vlm.loading import bare_model, load_config, weights_dtype
from rbft.vlm.quantize import require_quantizable
from rbft.vlm.sharded import shards

if TYPE_CHECKING:
    from rbft.experiment import Stage
    from rbft.pipeline.stage_cli import StageCLI
    from rbft.rationales.writer import RationaleWriter


# Of Lightning's settings those that leave batches as they are; weights in half precision are loaded so by model.dtype.
_PRECISIONS = ("None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")


def require_settings(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse what settings and splits alone show, before a model's files are read.

    Raises:
        RBFTError: Names the stage and the keys.
    """
    for stage, cli in zip(stages, clis, strict=True):
        _require_precision(cli)
        _require_quantize(cli)
        require_unsharded(stage, cli)
        _require_elsewhere(stage, cli.model.writer)
        _require_callbacks(cli)
        require_videos(stage, cli)
        require_encoder(stage, cli)
    _require_orders(stages, clis)
    _require_selections(stages, clis)
    _require_answers(stages, clis)
    _require_blind(stages, clis)
    _require_epochs(stages, clis)
    require_unseen(stages, clis)
    require_labelled(stages, clis)
    require_texts(stages, clis)


def require_models(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse what does not go with a stage's model, which is built without its weights to see.

    Raises:
        ConfigError: Names the stage and the keys.
    """
    for stage, cli in zip(stages, clis, strict=True):
        _require_scaled_gradients(stage, cli)
    _require_tuning(clis)


def _require_precision(cli: StageCLI) -> None:
    """Refuse a precision that would cast batches or weights on its own.

    Raises:
        ConfigError: Names the key and what to set instead.
    """
    precision = cli.config["trainer"]["precision"]
    if str(precision) not in _PRECISIONS:
        raise ConfigError(
            f"trainer.precision: {precision!r} is not supported; use one of {', '.join(_PRECISIONS[1:])}."
            " For weights in half precision set model.dtype, for example to bfloat16."
        )


def _require_scaled_gradients(stage: Stage, cli: StageCLI) -> None:
    """Refuse to train what computes in float16 without a scaler: most gradients would be too small for it.

    Raises:
        ConfigError: Names the keys.
    """
    scaled = str(cli.config["trainer"]["precision"]) not in ("None", "32", "32-true")
    model = cli.model
    if stage.trains and not scaled:
        config = load_config(model.name, model.revision)
        if weights_dtype(config, model.dtype_) == torch.float16:
            raise ConfigError(
                f"model.dtype: the stage {stage.name!r} would train in float16, in which gradients vanish. Set "
                "trainer.precision to 16-mixed, which scales them, or model.dtype to bfloat16 or float32."
            )


def _require_tuning(clis: Sequence[StageCLI]) -> None:
    """Refuse a tuning that does not go with its model, which is built without its weights to see.

    Raises:
        ConfigError: Names the key.
    """
    for name, revision, tuning in dict.fromkeys((cli.model.name, cli.model.revision, cli.model.tuning) for cli in clis):
        with torch.device("meta"):
            tuning.apply(bare_model(load_config(name, revision)))


def _require_quantize(cli: StageCLI) -> None:
    """Refuse weights in 4 bits where they cannot be had.

    Raises:
        ConfigError: Names the keys.
    """
    config = cli.config["trainer"]
    on_gpu = config["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    require_quantizable(cli.model.quantize, on_gpu=on_gpu)


def require_videos(stage: Stage, cli: StageCLI) -> None:
    """Refuse a stage that needs videos of a split that has none.

    Raises:
        DataError: Names the stage and what to change.
    """
    splits = cli.datamodule.splits
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
    if stage.trains and cli.model.selection.weights == "best" and not splits.val:
        raise DataError(
            f"the stage {stage.name!r} keeps the weights that validate best (model.selection), and "
            "there are no validation videos; set data.val_shots or data.val_fraction."
        )
    if stage.kind in ASKING_KINDS and cli.model.answering.needs_validation and not splits.val:
        raise DataError(
            f"the stage {stage.name!r} lets validation videos decide (model.answering), and there are "
            "none; set data.val_shots or data.val_fraction, or state mode, mixture_weight, gate and strength."
        )
    if (
        stage.kind in ASKING_KINDS
        and cli.model.answering.crossfits
        and video_folds(splits.train, cli.datamodule.labels) is None
    ):
        raise DataError(
            f"the stage {stage.name!r}: model.answering: crossfit holds back a part of the labelled videos at a "
            "time, and a class has all of its videos in one group, or a single one. Label videos of another group, or "
            "choose on validation videos (mode or choose_on validation)."
        )
    if stage.kind in ASKING_KINDS and cli.model.robustness.swap and not cli.model.answering.writes:
        raise ConfigError(
            f"the stage {stage.name!r}: model.robustness.swap keeps a video's own rationale, and under "
            "model.answering.mode direct none is written. Set the mode to rationale or mixture."
        )
    if stage.kind in ASKING_KINDS and cli.model.robustness.swap and cli.model.answering.mode in ("gated", "argued"):
        mode = cli.model.answering.mode
        why = "not every video has one" if mode == "gated" else "every video has one for each class"
        raise ConfigError(
            f"the stage {stage.name!r}: model.robustness.swap keeps a video's own rationale, and under "
            f"model.answering.mode {mode} {why}. Set the mode to rationale or mixture."
        )


def require_encoder(stage: Stage, cli: StageCLI) -> None:
    """Refuse a stage whose video encoder is not there, or is none; reads no weights.

    Raises:
        RBFTError: Names the key and what to do.
    """
    if stage.kind != "encoder_probe":
        return
    folder = cli.model.encoder.folder
    if folder is None:
        raise ConfigError(
            f"the stage {stage.name!r} needs a video encoder: set {KEY} to the folder of one on this machine ({KNOWN})."
        )
    ClipPixels(EncoderFiles(folder))


def _require_elsewhere(stage: Stage, writer: RationaleWriter) -> None:
    """Refuse what another program cannot write, before anything is done.

    Raises:
        ConfigError: There is no such program, or the stage starts from weights that it does not have.
    """
    if stage.kind not in ("write", "caption_probe") or writer.vllm is None:
        return
    writer.vllm.python()
    if stage.weights_from is not None:
        raise ConfigError(
            f"model.writer.vllm writes with the model as it is published, and the stage {stage.name!r} "
            f"starts from the weights of {stage.weights_from!r}; leave it out there."
        )


def _require_callbacks(cli: StageCLI) -> None:
    """Refuse callbacks that would do what a run does by itself.

    Raises:
        ConfigError: Names the callback and what there is instead.
    """
    instead = (
        (Checkpoint, "a run saves by itself; save_every says how often, model.selection which weights are kept"),
        (ProgressBar, "a run shows its progress by itself"),
        (ModelSummary, "`rbft fit --dry_run` says what a run costs"),
    )
    for callback in cli.callbacks:
        for kind, why in instead:
            if isinstance(callback, kind):
                raise ConfigError(f"trainer.callbacks: take {type(callback).__name__} out; {why}.")


def _require_orders(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse stages that read or score texts in another order than the weights they start from were taught.

    A model that learned to state the class before its reasons has decided before it writes: it never learned to answer
    after its own words.

    Raises:
        ConfigError: Names the stage and the key.
    """
    of = {stage.name: (stage, cli) for stage, cli in zip(stages, clis, strict=True)}
    for stage, cli in of.values():
        taught = set()
        source = stage.weights_from
        while source is not None:
            before, order = of[source]
            if before.kind in ("rationale", "joint"):
                taught.add(order.model.prompts.target_order)
            source = before.weights_from
        if "label_then_rationale" not in taught:
            continue
        if stage.kind in ("reasoned", "preference"):
            raise ConfigError(
                f"the stage {stage.name!r} teaches the class after rationales, and under model.prompts.target_order "
                "label_then_rationale the class comes first. Set target_order to rationale_then_label."
            )
        if stage.kind in (*ASKING_KINDS, "answer") and cli.model.answering.writes:
            raise ConfigError(
                f"the stage {stage.name!r}: model.answering.mode {cli.model.answering.mode} answers after its "
                "own rationale, and under model.prompts.target_order label_then_rationale the class comes first. Set "
                "model.answering.mode to direct, or target_order to rationale_then_label."
            )
        if stage.kind == "write" and cli.model.prompts.target_order != "label_then_rationale":
            raise ConfigError(
                f"the stage {stage.name!r} reads texts of a model that was taught to state the class first, and would "
                "find them empty; set model.prompts.target_order to label_then_rationale for it too."
            )


def _require_selections(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to choose among epochs by answers after an own rationale where there can be none.

    Raises:
        ConfigError: Names the stage and the key.
    """
    for stage, cli in zip(stages, clis, strict=True):
        if not stage.trains or not cli.model.chooses_after_rationales:
            continue
        prompts = cli.model.prompts
        why = ""
        if shards(cli.config["trainer"]["strategy"]):
            why = "trainer.strategy fsdp2 writes none while it trains"
        elif prompts.target_order == "label_then_rationale":
            why = "under model.prompts.target_order label_then_rationale the class stands before them"
        elif prompts.rationale_question == prompts.label_question:
            why = "model.prompts.rationale_question is the label question"
        if why:
            raise ConfigError(
                f"the stage {stage.name!r}: model.selection.weights best chooses the epoch that is right most often "
                f"after its own rationales, and {why}. Set model.selection.weights to last for it."
            )


def _require_answers(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to take soft labels from another way of answering than after own rationales.

    Raises:
        ConfigError: Names the stage and the key.
    """
    for stage, cli in zip(stages, clis, strict=True):
        answering = cli.model.answering
        if stage.kind != "answer":
            continue
        if answering.mode != "rationale":
            raise ConfigError(
                f"the stage {stage.name!r}: model.answering.mode {answering.mode} gives no soft labels to distil; set "
                "it to rationale."
            )
        if answering.strength is None:
            raise ConfigError(
                f"the stage {stage.name!r}: model.answering.strength null is chosen in a test; state a number here."
            )
        if answering.choose_on != "validation":
            raise ConfigError(
                f"the stage {stage.name!r}: model.answering.choose_on {answering.choose_on} is for a test; here "
                "nothing is chosen. Leave it out."
            )


def _require_blind(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to learn the class after texts that were written with it, as no test will have them.

    Raises:
        ConfigError: Names the stage that writes and the key.
    """
    models = {stage.name: cli.model for stage, cli in zip(stages, clis, strict=True)}
    for stage in stages:
        if stage.kind not in ("reasoned", "preference") or stage.rationales_from is None:
            continue
        model, learner = models[stage.rationales_from], models[stage.name].objective
        hinted = model.writer.attempts(model.prompts.hint)[0].hinted
        if learner is not None and learner.contrasts:
            if not hinted or not model.writer.contrast:
                raise ConfigError(
                    f"the stage {stage.name!r} prefers rationales hinted to the right class to such of another class, "
                    f"and {stage.rationales_from!r} does not write both. Set model.writer.contrast to true and "
                    f"model.prompts.hint to hint_stripped in the layer of {stage.rationales_from!r}."
                )
            continue
        if any(attempt.hinted for attempt in model.writer.attempts(model.prompts.hint)):
            raise ConfigError(
                f"the stage {stage.name!r} learns from rationales as a test has them, and those of "
                f"{stage.rationales_from!r} are written with the class. Set model.prompts.hint to blind in the layer "
                f"of {stage.rationales_from!r}."
            )


def _require_epochs(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to match the tokens of rationales where something else than epochs ends the training.

    Raises:
        ConfigError: Names the stage and the key.
    """
    for stage, cli in zip(stages, clis, strict=True):
        if stage.rationale_epochs and cli.config["trainer"]["max_steps"] > 0:
            raise ConfigError(
                f"the stage {stage.name!r}: trainer.max_steps would end it before it has seen the tokens "
                "that rationale_epochs asks for; set trainer.max_epochs instead."
            )
