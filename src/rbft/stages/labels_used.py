"""How many labelled videos a run has used, for training and for choosing: what methods must be compared at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rbft.experiment import KINDS

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage

VIDEOS = "labels/videos"


def label_figures(prepared: Sequence[ReadStage]) -> dict[str, int | float]:
    """Labelled videos that the stages of a run use, each counted once.

    A validation video is a label like any other where it decides on something that an answer depends on: the way of
    answering, its strength, the epoch, the penalty of a probe. One that only fits the temperature of the probabilities
    changes no answer and is counted apart.

    Args:
        prepared: stages of the run.

    Returns:
        For metrics.json: `labels/videos`, of which `labels/training` and `labels/choosing`; `labels/calibrating`: used
        for the temperature alone; and `labels/per_class`, the mean number of `labels/videos` over the classes.
    """
    training: set[str] = set()
    choosing: set[str] = set()
    calibrating: set[str] = set()
    for entry in prepared:
        data, module, stage, kind = entry.datamodule, entry.module, entry.stage, entry.stage.kind
        val = {record.id for record in data.splits.val}
        if not stage.asks or kind == "demonstrations":
            training |= {record.id for record in data.splits.train}
        if KINDS[kind].fits_validation:
            training |= val
        if (
            (stage.trains and module.selection.weights == "best")
            or (KINDS[kind].probes and kind != "rationale_probe")
            or (kind == "combine" and stage.probe_weight is None)
            or (stage.asks and module.answering.needs_validation)
        ):
            choosing |= val
        elif stage.asks and module.answering.calibrate:
            calibrating |= val
    choosing -= training
    used = training | choosing
    classes = len(prepared[0].datamodule.labels) if prepared else 1
    return {
        VIDEOS: len(used),
        "labels/training": len(training),
        "labels/choosing": len(choosing),
        "labels/calibrating": len(calibrating - used),
        "labels/per_class": round(len(used) / classes, 3),
    }


def describe_labels(figures: Mapping[str, Any]) -> str:
    """The figures as one sentence."""
    if not figures[VIDEOS]:
        text = "no labelled video"
    else:
        parts = [
            f"{figures[f'labels/{key}']} for {key}" for key in ("training", "choosing") if figures[f"labels/{key}"]
        ]
        text = f"{figures[VIDEOS]} labelled videos, {figures['labels/per_class']:g} a class ({', '.join(parts)})"
    only = figures["labels/calibrating"]
    return text + (f"; {only} more for the temperature of the probabilities alone" if only else "")
