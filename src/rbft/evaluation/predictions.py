"""One line a test video: what was predicted, with one probability per label; and what is counted from these lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbft.errors import DataError
from rbft.files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Prediction:
    """What the model says of one video.

    Args:
        id: id of the video.
        video: path under the data root.
        label: true class.
        predicted: likeliest class; None for a video that could not be read, which counts as wrong.
        probabilities: one per label, in the order of the label set; they sum to 1.
        log_likelihoods: scores of the labels in the same order: log-likelihoods of their texts as `model.scoring` says,
            or the logarithm of the probabilities where several answers are combined.
        rationale: the model's own words, if asked for; several are separated by empty lines.
        answers: probabilities by the way of answering, where there was more than one.
        calibrated: probabilities after a temperature was applied; empty where there is none.

    Raises:
        DataError: A number is not finite.
    """

    id: str
    video: str
    label: str
    predicted: str | None
    probabilities: tuple[float, ...]
    log_likelihoods: tuple[float, ...]
    rationale: str | None = None
    answers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    calibrated: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = chain(self.probabilities, self.log_likelihoods, self.calibrated, *self.answers.values())
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise DataError(
                f"{self.video}: its scores are not all finite numbers; score it again (`rbft fit --restart` with the "
                "test's --stage)."
            )


def probabilities(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    """Softmax over the closed set, in double precision."""
    top = max(log_likelihoods)
    weights = [math.exp(value - top) for value in log_likelihoods]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as JSON Lines, whole or not at all."""
    write_jsonl(path, [asdict(prediction) for prediction in predictions])


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.

    Raises:
        DataError: A line is not a prediction; names file and line.
    """
    predictions = []
    for number, row in read_jsonl(path):
        try:
            row["probabilities"], row["log_likelihoods"] = (
                tuple(row["probabilities"]),
                tuple(row["log_likelihoods"]),
            )
            row["calibrated"] = tuple(row.get("calibrated", ()))
            row["answers"] = {mode: tuple(chances) for mode, chances in row.get("answers", {}).items()}
            predictions.append(Prediction(**row))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: not a prediction ({error}).") from error
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    return predictions


def accuracy_and_nll(predictions: Sequence[Prediction], names: Sequence[str]) -> tuple[float, float]:
    """How well labelled videos are answered, to choose by: share that is right, and mean negative log-probability.

    Args:
        predictions: predictions of labelled videos, each with probabilities; at least one.
        names: the classes.

    Returns:
        Share of the videos whose likeliest class is right, and the mean of minus the logarithm of the probability of
        the right class in nats, which a probability of 0 leaves finite.
    """
    right = sum(prediction.predicted == prediction.label for prediction in predictions)
    likely = [prediction.probabilities[names.index(prediction.label)] for prediction in predictions]
    nll = -sum(math.log(max(chance, 1e-300)) for chance in likely)
    return right / len(predictions), nll / len(predictions)


def confusion_counts(predictions: Sequence[Prediction], names: Sequence[str]) -> NDArray[np.int64]:
    """Counts (C, C): rows are true classes, columns predicted ones; unreadable videos are in neither."""
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for prediction in predictions:
        if prediction.predicted is not None:
            counts[place[prediction.label], place[prediction.predicted]] += 1
    return counts


def recalls(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each class how many test videos are right, and how many there are, unreadable ones included."""
    right, total = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for prediction in predictions:
        total[prediction.label] += 1
        right[prediction.label] += prediction.predicted == prediction.label
    return {name: (right[name], total[name]) for name in names}
