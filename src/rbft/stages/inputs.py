"""What a stage's result depends on: the settings that shape it, its videos, the model's files, the stages before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rbft.experiment import KINDS, Stage
from rbft.files import expanded
from rbft.vlm.loading import folder_fingerprint, model_fingerprint

if TYPE_CHECKING:
    from rbft.data.datamodule import VideoDataModule
    from rbft.training.module import VLMFineTuner

# What of the configuration shapes a stage's result, by what the stage does. Learning rates do not shape rationales,
# and the number of devices shapes nothing that a finished stage would have to be repeated for.
_MODEL_KEYS = ("vlm", "revision", "dtype", "quantize", "attn_implementation", "prompts")
_ENCODER_MODEL_KEYS = ("dtype", "encoder")
_ENCODER_DATA_KEYS = ("max_pixels", "clip_control")
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
# The same, with what they are where they shape nothing; stages that were done before stay done.
_ENDS = {"max_time": None, "min_epochs": None, "min_steps": None}
_VALIDATED_WHEN = {"check_val_every_n_epoch": 1, "val_check_interval": None}
# Callbacks that only look on.
_LOOKING_ON = ("DeviceStatsMonitor", "LearningRateMonitor", "ThroughputMonitor")
# Settings of answering that came later, with what all stages before them were answered with.
_LATER_ANSWERING = {"gate": None, "most_reasoned": 1.0, "choose_on": "validation", "most_argued": 8}
# The same of arguments of other parts.
_LATER = {"layers": None, "between": "conclusions"}


def stage_inputs(
    stage: Stage, module: VLMFineTuner, data: VideoDataModule, config: dict[str, Any], done: dict[str, str]
) -> dict[str, Any]:
    """Everything a stage's result depends on, as plain values.

    Args:
        stage: the stage.
        module: its LightningModule.
        data: its LightningDataModule.
        config: resolved configuration.
        done: fingerprints of the stages before it, by name.
    """
    if stage.kind == "combine":
        sources = [done[name] for name in stage.predictions_from]
        pool = {} if stage.pool == "linear" else {"pool": stage.pool}
        return {"kind": stage.kind, "predictions": sources, "probe_weight": stage.probe_weight, **pool}
    if stage.kind == "rationale_probe":
        sources = [done[name] for name in stage.predictions_from]
        return {"kind": stage.kind, "predictions": sources, "rationales": done[stage.rationales_from or ""]}
    model, trainer = config["model"], config["trainer"]
    # stages as they always were have the inputs they always had
    model = model | {"answering": {k: v for k, v in model["answering"].items() if _LATER_ANSWERING.get(k, ...) != v}}
    model = model | {"writer": {k: v for k, v in model["writer"].items() if k != "contrast" or v}}
    if not stage.asks or module.answering.mode != "argued":
        model = model | {"prompts": {k: v for k, v in model["prompts"].items() if k != "argued_question"}}
    keys = {"model": list(_MODEL_KEYS), "data": list(_SAMPLING_KEYS), "trainer": ["precision"]}
    if stage.kind == "write":
        keys["model"] += ["writer", "checks", "keep"]
        videos = data.fingerprint("train", "unlabelled") if data.unlabelled else data.fingerprint("train")
    elif stage.kind == "answer":
        model = model | {"scoring": {key: model["scoring"][key] for key in ("normalize", "prior")}}
        keys["model"] += ["scoring", "answering"]
        videos = data.fingerprint("train", "unlabelled") if data.unlabelled else data.fingerprint("train")
    elif stage.trains:
        keys["model"] += _TRAINING_MODEL_KEYS
        keys["data"] += _TRAINING_DATA_KEYS
        keys["trainer"] += _TRAINING_TRAINER_KEYS
        chosen = module.selection.weights == "best"
        videos = data.fingerprint("train", "val") if chosen else data.fingerprint("train")
        if module.control is not None:
            videos += module.control.takes(data.splits.train)
    else:
        # its bound on memory changes no score
        model = model | {"scoring": {key: model["scoring"][key] for key in ("normalize", "prior")}}
        probes = KINDS[stage.kind].probes
        keys["model"] += [] if probes else ["scoring", "answering"]
        keys["model"] += ["writer"] if stage.kind == "caption_probe" else []
        keys["model"] += ["robustness"] if not probes and module.robustness.passes else []
        keys["model"] += ["demonstrations"] if stage.kind == "demonstrations" else []
        if not stage.uses_model:  # neither it nor what it is shown plays a part
            keys["model"], keys["data"] = list(_ENCODER_MODEL_KEYS), list(_ENCODER_DATA_KEYS)
        videos = data.fingerprint("train", "test")
        answering = module.answering
        if probes or answering.needs_validation or (answering.calibrate and data.splits.val):
            videos += ":" + data.fingerprint("val")
        # they count as wrong, so a test without them is another test
        videos += "".join(f":{record.id}" for record in data.unreadable)
    return {
        "kind": stage.kind,
        "seed": config["seed_everything"],
        "model": {key: _as_ever(model[key]) for key in keys["model"]}
        | ({"template_arguments": model["template_arguments"]} if model["template_arguments"] else {})
        | {"files": _files(stage, module)},
        "data": {key: config["data"][key] for key in keys["data"]} | {"videos": videos},
        "trainer": {key: trainer[key] for key in keys["trainer"]} | (_acting(trainer) if stage.trains else {}),
        **({"rationale_epochs": stage.rationale_epochs} if stage.rationale_epochs else {}),
        **(_validation(module, model, trainer) if stage.trains else {}),
        "weights": done.get(stage.weights_from or ""),
        "rationales": done.get(stage.rationales_from or ""),
        **({"answers": done[stage.answers_from]} if stage.answers_from else {}),
        **({"views": stage.views} if stage.views > 1 else {}),
    }


def _files(stage: Stage, module: VLMFineTuner) -> str:
    """A hash of the files of the model that a stage uses."""
    folder = module.encoder.folder
    if not stage.uses_model and folder is not None:
        return folder_fingerprint(expanded(folder))
    return model_fingerprint(module.name)


def _as_ever(value: Any) -> Any:
    """A setting without arguments that came later and are not used: stages that were done before stay done."""
    arguments = value.get("init_args") if isinstance(value, dict) else None
    if not isinstance(arguments, dict):
        return value
    return {**value, "init_args": {name: kept for name, kept in arguments.items() if _LATER.get(name, ...) != kept}}


def _acting(trainer: dict[str, Any]) -> dict[str, Any]:
    """Settings of the trainer that few files have, and that end or change a training."""
    acting = {key: trainer[key] for key, unset in _ENDS.items() if trainer[key] != unset}
    named = trainer["callbacks"] or []
    callbacks = [
        callback
        for callback in (named if isinstance(named, list) else [named])
        if callback["class_path"].rpartition(".")[2] not in _LOOKING_ON
    ]
    return acting | ({"callbacks": callbacks} if callbacks else {})


def _validation(module: VLMFineTuner, model: dict[str, Any], trainer: dict[str, Any]) -> dict[str, Any]:
    """What decides on the best epoch, beside the videos; stages as they always were have the inputs they always had."""
    if module.selection.weights != "best":
        return {}
    inputs: dict[str, Any] = {key: model["scoring"][key] for key in ("normalize", "prior")}
    if inputs == {"normalize": "sum", "prior": "none"}:
        inputs = {}
    inputs |= {key: trainer[key] for key, unset in _VALIDATED_WHEN.items() if trainer[key] != unset}
    if module.chooses_after_rationales:
        inputs["rationale_tokens"] = module.writer.max_new_tokens
    return {"validation": inputs} if inputs else {}
