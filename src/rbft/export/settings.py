"""rbft.json: everything beside the weights that an answer of an exported run depends on, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rbft import __version__
from rbft.evaluation.calibration import Calibration, fit_temperature
from rbft.evaluation.predictions import Prediction
from rbft.predict.model import WarmModel
from rbft.predict.run_settings import Recorded

SCHEMA = 1
"""Of rbft.json; raised when the meaning of what stands there changes."""


def frame_policy(model: WarmModel) -> dict[str, Any]:
    """Which frames of a video are taken, and in which size."""
    spec = model.data.spec
    sampling, budget = spec.sampling, spec.budget
    return {
        "num_frames": sampling.num_frames,
        "fps": sampling.fps,
        "max_frames": sampling.max_frames,
        "places": "the middle of each of equal parts of the video",
        "max_pixels": spec.max_pixels,
        "multiple": spec.multiple if budget is None else budget.side,
        "cells": None if budget is None else budget.cells,
        "group": None if budget is None else budget.group,
        "cell": model.processor.cell,
        "max_visual_tokens": model.data.max_visual_tokens,
    }


def calibration_of_program(recorded: Recorded) -> Calibration:
    """Calibration of direct answers, which is what the program of an export gives, however the run's test answered.

    A temperature that was fitted to other answers says nothing of these; one is fitted to the direct answers about the
    validation videos.

    Raises:
        RBFTError: The predictions of the validation videos are damaged.
    """
    if recorded.choice.mode == "direct" or recorded.calibration.temperature is None:
        return recorded.calibration
    names = recorded.labels.names
    return fit_temperature([_direct(prediction, names) for prediction in recorded.validation()], names)


def _direct(prediction: Prediction, names: Sequence[str]) -> Prediction:
    chances = prediction.answers.get("direct", prediction.probabilities)
    logs = tuple(math.log(max(chance, 1e-300)) for chance in chances)
    said = names[chances.index(max(chances))]
    return replace(prediction, predicted=said, probabilities=chances, log_likelihoods=logs, calibrated=())


def describe_run(recorded: Recorded, model: WarmModel, form: str) -> dict[str, Any]:
    """The content of rbft.json.

    Args:
        recorded: The run.
        model: Its model.
        form: form of the weights beside it.
    """
    module, book = model.module, model.book
    prompts, answering, choice = book.prompts, module.answering, recorded.choice
    prior = recorded.prior or (0.0,) * len(book.texts)
    lengths = model.module.scoring.scorer.lengths or (1.0,) * len(book.texts)
    labels = [
        {
            "name": name,
            "text": text,
            "ids": model.processor.target_ids(book.label_prompt(), text).tolist(),
            "length": length,
            "prior": value,
        }
        for name, text, length, value in zip(recorded.labels.names, book.texts, lengths, prior, strict=True)
    ]
    argued = {name: book.argued_prompt(name).question for name in recorded.labels.names}
    return {
        "schema": SCHEMA,
        "rbft": __version__,
        "form": form,
        "base_model": {
            "name": module.name,
            "revision": module.revision,
            "dtype": module.dtype_,
            "quantize": module.quantize,
        },
        "labels": labels,
        "prompts": {
            "system": prompts.system,
            "label_question": book.label_prompt().question,
            "rationale_question": book.blind_prompt().question,
            **({"argued_questions": argued} if choice.mode == "argued" else {}),
            "conclusion": prompts.conclusion,
            "separator": prompts.separator,
            "template_arguments": dict(module.processor_key[2]),
        },
        "frames": frame_policy(model),
        "answering": {
            "mode": choice.mode,
            "mixture_weight": choice.mixture_weight,
            **({} if model.module.scoring.gate is None else {"gate": model.module.scoring.gate}),
            **({"most_argued": answering.most_argued} if choice.mode == "argued" else {}),
            "strength_folded_in": choice.strength,
            "samples": answering.samples,
            "temperature": answering.temperature,
            "top_p": answering.top_p,
            "max_new_tokens": answering.max_new_tokens,
            "seed": model.seed,
        },
        "calibration": recorded.calibration.to_json(),
        "calibration_of_program": calibration_of_program(recorded).to_json(),
        "run": {
            "experiment": recorded.experiment.name,
            "method": recorded.experiment.method,
            "variant": recorded.experiment.variant,
            "stage": recorded.stage.name,
        },
    }
