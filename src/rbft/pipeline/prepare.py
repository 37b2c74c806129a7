"""All stages of an experiment, read and checked before any model is loaded."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from rbft.data.datamodule import VideoDataModule
from rbft.data.prompts import PromptBook
from rbft.errors import ConfigError
from rbft.experiment import Experiment, Stage
from rbft.pipeline.requirements import (
    require_attempts,
    require_elsewhere,
    require_epochs,
    require_orders,
    require_selections,
    require_videos,
)
from rbft.pipeline.stage_cli import StageCLI
from rbft.pipeline.video_check import inspect_videos
from rbft.runs.stage_record import fingerprint
from rbft.stages.context import Prepared
from rbft.training.module import VLMFineTuner
from rbft.vlm.loading import load_config, model_fingerprint, weights_dtype
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.quantize import require_quantizable

# Of Lightning's settings those that leave batches as they are; weights in half precision are loaded so by model.dtype.
_PRECISIONS = ("None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")
# What of the configuration shapes a stage's result, by what the stage does. Learning rates do not shape rationales,
# and the number of devices shapes nothing that a finished stage would have to be repeated for.
_MODEL_KEYS = ("vlm", "revision", "dtype", "quantize", "attn_implementation", "prompts")
_SAMPLING_KEYS = ("num_frames", "fps", "max_frames", "max_pixels", "max_visual_tokens", "clip_control")
_TRAINING_MODEL_KEYS = ("tuning", "objective", "optim", "selection", "control")
_TRAINING_DATA_KEYS = ("frames", "batch_size")
_TRAINING_TRAINER_KEYS = (
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
)


def _inputs(stage: Stage, cli: StageCLI, config: dict[str, Any], done: dict[str, str]) -> dict[str, Any]:
    """Everything a stage's result depends on, as plain values."""
    data: VideoDataModule = cli.datamodule
    model, trainer = config["model"], config["trainer"]
    keys = {"model": list(_MODEL_KEYS), "data": list(_SAMPLING_KEYS), "trainer": ["precision"]}
    if stage.kind == "write":
        keys["model"] += ["writer", "checks", "keep"]
        videos = data.fingerprint("train", "unlabelled") if data.unlabelled else data.fingerprint("train")
    elif stage.trains:
        keys["model"] += _TRAINING_MODEL_KEYS
        keys["data"] += _TRAINING_DATA_KEYS
        keys["trainer"] += _TRAINING_TRAINER_KEYS
        chosen = cli.model.selection.weights == "best"
        videos = data.fingerprint("train", "val") if chosen else data.fingerprint("train")
        if cli.model.control is not None:
            videos += cli.model.control.takes(data.splits.train)
    else:
        # its bound on memory changes no score
        model = model | {"scoring": {key: model["scoring"][key] for key in ("normalize", "prior")}}
        probes = stage.kind == "probe"
        keys["model"] += [] if probes else ["scoring", "answering"]
        videos = data.fingerprint("train", "test")
        answering = cli.model.answering
        if probes or answering.needs_validation or (answering.calibrate and data.splits.val):
            videos += ":" + data.fingerprint("val")
        # they count as wrong, so a test without them is another test
        videos += "".join(f":{record.id}" for record in data.unreadable)
    return {
        "kind": stage.kind,
        "seed": config["seed_everything"],
        "model": {key: model[key] for key in keys["model"]} | {"files": model_fingerprint(model["vlm"])},
        "data": {key: config["data"][key] for key in keys["data"]} | {"videos": videos},
        "trainer": {key: trainer[key] for key in keys["trainer"]},
        **({"rationale_epochs": stage.rationale_epochs} if stage.rationale_epochs else {}),
        **(_validation(cli, model) if stage.trains else {}),
        "weights": done.get(stage.weights_from or ""),
        "rationales": done.get(stage.rationales_from or ""),
    }


def _validation(cli: StageCLI, model: dict[str, Any]) -> dict[str, Any]:
    """What decides on the best epoch, beside the videos; stages as they always were have the inputs they always had."""
    if cli.model.selection.weights != "best":
        return {}
    found: dict[str, Any] = {key: model["scoring"][key] for key in ("normalize", "prior")}
    if found == {"normalize": "sum", "prior": "none"}:
        found = {}
    if cli.model.chooses_behind_rationales:
        found["rationale_tokens"] = cli.model.writer.max_new_tokens
    return {"validation": found} if found else {}


def _check_precision(cli: StageCLI) -> None:
    precision = cli.config["trainer"]["precision"]
    if str(precision) not in _PRECISIONS:
        raise ConfigError(
            f"trainer.precision: {precision!r} is not supported; use one of {', '.join(_PRECISIONS[1:])}."
            " For weights in half precision set model.dtype, for example to bfloat16."
        )


def _check_scaled(stage: Stage, cli: StageCLI) -> None:
    """Refuse to train what computes in float16 without a scaler: most gradients would be too small for it."""
    scaled = str(cli.config["trainer"]["precision"]) not in ("None", "32", "32-true")
    model = cli.model
    if stage.trains and not scaled:
        config = load_config(model.name, model.revision)
        if weights_dtype(config, model.dtype_) == torch.float16:
            raise ConfigError(
                f"model.dtype: the stage {stage.name!r} would train in float16, in which gradients vanish. Set "
                "trainer.precision to 16-mixed, which scales them, or model.dtype to bfloat16 or float32."
            )


def _check_quantize(cli: StageCLI) -> None:
    config = cli.config["trainer"]
    on_gpu = config["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    require_quantizable(cli.model.quantize, on_gpu=on_gpu)
    if cli.model.quantize != "none" and config["strategy"] == "fsdp2":
        raise ConfigError(
            "model.quantize and trainer.strategy fsdp2 exclude each other: weights in 4 bits are not "
            "spread over processes; use trainer.strategy ddp."
        )


def prepare(experiment: Experiment, console: Console) -> list[Prepared]:
    """Read and check all stages before any model is loaded.

    Raises:
        RBFTError: Anything that would make a stage fail or its result worthless.
    """
    clis = [StageCLI(experiment.arguments(stage)) for stage in experiment.stages]
    found: list[Prepared] = []
    books = []
    for stage, cli in zip(experiment.stages, clis, strict=True):
        data: VideoDataModule = cli.datamodule
        _check_precision(cli)
        _check_quantize(cli)
        require_elsewhere(stage, cli.model.writer)
        books.append(PromptBook(cli.model.prompts, data.labels))
        require_videos(stage, cli)
    require_orders(experiment.stages, clis)
    require_selections(experiment.stages, clis)
    require_attempts(experiment.stages, clis)
    require_epochs(experiment.stages, clis)
    models = [(cli.model.name, cli.model.revision) for cli in clis]
    loaded = {model: ClipProcessor(*model) for model in dict.fromkeys(models)}
    for stage, cli in zip(experiment.stages, clis, strict=True):
        _check_scaled(stage, cli)
    processors = [loaded[model] for model in models]
    datas: list[VideoDataModule] = [cli.datamodule for cli in clis]
    for data, processor in zip(datas, processors, strict=True):
        data.use_processor(processor)
    inspect_videos(datas, console)
    done: dict[str, str] = {}
    samples: dict[str, int] = {}
    unlabelled: dict[str, int] = {}
    for stage, cli, book, processor in zip(experiment.stages, clis, books, processors, strict=True):
        module: VLMFineTuner = cli.model
        config = cli.resolved()
        seed = int(config["seed_everything"])
        module.connect(processor, book, seed)
        inputs = _inputs(stage, cli, config, done)
        done[stage.name] = fingerprint(inputs)
        if stage.kind == "write":
            samples[stage.name] = module.writer.samples
            unlabelled[stage.name] = len(cli.datamodule.unlabelled_videos)
        learnt = "" if stage.rationale_epochs else stage.rationales_from or ""
        count = samples.get(learnt, 0)
        without = unlabelled.get(stage.name if stage.kind == "write" else learnt, 0)
        found.append(
            Prepared(
                stage=stage,
                module=module,
                datamodule=cli.datamodule,
                make_trainer=cli.make_trainer,
                config=config,
                book=book,
                processor=processor,
                inputs=inputs,
                fingerprint=done[stage.name],
                rationale_samples=count,
                unlabelled=without,
            )
        )
    return found
