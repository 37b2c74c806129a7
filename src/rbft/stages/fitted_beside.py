"""What the classifiers that are fitted beside the model, to all labelled videos, leave as a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
from numpy.typing import NDArray

from rbft.data.datamodule import VideoDataModule
from rbft.data.records import VideoRecord
from rbft.evaluation.calibration import fit_temperature
from rbft.evaluation.cross_fit import CrossFitted
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.ranks import first_rank
from rbft.runs.names import VALIDATION
from rbft.stages.context import StageContext
from rbft.stages.score import leave_test


@dataclass(frozen=True)
class LabelledVideos:
    """The labelled videos of a run: of training and validation alike.

    Args:
        records: the videos.
        truth: (N,) class of each.
        groups: group of each; clips of one group are never fitted to and answered in one fold.
    """

    records: tuple[VideoRecord, ...]
    truth: NDArray[np.int64]
    groups: tuple[str, ...]


def labelled_videos(data: VideoDataModule) -> LabelledVideos:
    """All labelled videos, each once."""
    return labelled_as(data, (*data.splits.train, *data.splits.val))


def labelled_as(data: VideoDataModule, records: Sequence[VideoRecord]) -> LabelledVideos:
    """These videos, with their classes and groups."""
    truth = np.array([data.labels.index(record.label) for record in records], dtype=np.int64)
    return LabelledVideos(tuple(records), truth, tuple(":".join(record.source) for record in records))


def leave_fitted(
    context: StageContext,
    trainer: L.Trainer,
    labelled: LabelledVideos,
    crossed: CrossFitted[Any],
    answered: NDArray[np.float64],
    texts: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Leave what a test leaves; the out-of-fold answers calibrate the probabilities.

    Args:
        context: the stage.
        trainer: trainer of the stage.
        labelled: labelled videos.
        crossed: classifier of all of them, and its out-of-fold answers.
        answered: probability of each class (M, C) for the test videos, in their order.
        texts: texts of each video that its answer rests on, by its id.

    Returns:
        Figures of the stage.
    """
    data, names = context.entry.datamodule, context.entry.datamodule.labels.names

    def predictions(records: Sequence[VideoRecord], chances: NDArray[np.float64]) -> list[Prediction]:
        return [
            _prediction(record, row, names, (texts or {}).get(record.id, ()))
            for record, row in zip(records, chances, strict=True)
        ]

    validated = [] if crossed.probabilities is None else predictions(labelled.records, crossed.probabilities)
    calibration = fit_temperature(validated, names)
    metrics = leave_test(context, trainer, predictions(data.splits.test, answered), calibration)
    if first_rank():
        write_predictions(context.folder / VALIDATION, calibration.apply(validated))
    return {
        "test/accuracy": metrics["test/accuracy"],
        "l2": crossed.strength,
        "chosen_on": crossed.chosen_on,
        "chosen_accuracy": crossed.accuracy,
        "chosen_nll": crossed.nll,
        "rows": len(labelled.records),
    }


def describe_choice(crossed: CrossFitted[Any]) -> str:
    """The penalty and how it was chosen, for people."""
    why = "chosen on folds of them" if crossed.probabilities is not None else "nothing to choose it by"
    return f"L2 {crossed.strength:g} ({why})"


def _prediction(
    record: VideoRecord, row: NDArray[np.float64], names: Sequence[str], texts: Sequence[str]
) -> Prediction:
    logs = tuple(np.log(np.maximum(row, 1e-300)).tolist())
    predicted = names[int(row.argmax())]
    words = "\n\n".join(texts) if texts else None
    return Prediction(record.id, record.video, record.label, predicted, tuple(row.tolist()), logs, words)
