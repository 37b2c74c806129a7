"""Calibrated probabilities: a temperature fitted on validation videos, and how well confidence agrees with accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rbft.errors import DataError
from rbft.evaluation.predictions import Prediction, probabilities

BINS = 15
"""Bins of equal width for reliability and expected calibration error (Guo et al., arXiv 1706.04599, section 2)."""
HOTTEST = 100.0
"""Temperature at which fitting stops."""
SPREAD = 1.0
"""Standard deviation of the logarithm of a temperature before any video is seen; the mean is 0."""


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling made of a classifier's probabilities (Guo et al., arXiv 1706.04599, section 4.2).

    The temperature divides the log-likelihoods before their softmax: it changes the confidence of an answer and never
    which class is the likeliest.

    Args:
        temperature: the temperature; above 1 the raw probabilities are overconfident. None where there is none.
        absent: why there is no temperature; None where there is one.
        validation_videos: number of validation videos it was fitted on.
        nll: mean negative log-probability of the right class on these videos in nats, before and after.
        ece: expected calibration error on these videos, before and after.
    """

    temperature: float | None = None
    absent: str | None = None
    validation_videos: int = 0
    nll: tuple[float, float] | None = None
    ece: tuple[float, float] | None = None

    def calibrated(self, log_likelihoods: Sequence[float]) -> tuple[float, ...]:
        """Calibrated probabilities of a video's classes; the raw ones where there is no temperature."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return probabilities([value / temperature for value in log_likelihoods])

    def apply(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with calibrated probabilities beside the raw ones; as they are where there is none."""
        if self.temperature is None:
            return list(predictions)
        return [
            replace(p, calibrated=self.calibrated(p.log_likelihoods)) if p.log_likelihoods else p for p in predictions
        ]

    def describe(self) -> str:
        """One clause for people."""
        if self.temperature is None:
            return f"probabilities are not calibrated: {self.absent}"
        videos = f"{self.validation_videos} labelled videos that were not trained on"
        text = f"temperature {self.temperature:.3g}, fitted on {videos}"
        return text + ("" if self.ece is None else f", ECE there {self.ece[0]:.1%} before, {self.ece[1]:.1%} after")

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {"method": "temperature scaling"} | asdict(self)

    @classmethod
    def from_json(cls, content: Any, where: object) -> Calibration:
        """What `to_json` gave.

        Raises:
            DataError: It is something else; names the file.
        """
        try:
            temperature = content["temperature"]
            calibration = cls(
                None if temperature is None else float(temperature),
                content["absent"],
                int(content["validation_videos"]),
                _pair(content["nll"]),
                _pair(content["ece"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: not a calibration ({error}). Make it again: `rbft fit --restart` with the test's --stage."
            ) from error
        fitting = calibration.temperature is None or 0 < calibration.temperature < math.inf
        if (calibration.temperature is None) == (calibration.absent is None) or not fitting:
            raise DataError(f"{where}: not a calibration: it needs a finite temperature above 0 or why there is none.")
        return calibration


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    before, after = values
    return float(before), float(after)


def fit_temperature(validation: Sequence[Prediction], names: Sequence[str], *, wanted: bool = True) -> Calibration:
    """The likeliest temperature given the classes of the validation videos.

    The prior is log-normal around 1: the summed negative log-likelihood of many videos outweighs it,
    and where a handful happens to be wrong it keeps the temperature from going to where all classes are equally likely.

    Args:
        validation: predictions of videos that were not trained on, answered as the test answers.
        names: the classes.
        wanted: whether the settings ask for it.

    Returns:
        The temperature, or why there is none: no validation videos, or all of them right, where the fit would go to
        temperature 0 and so to certainty.
    """
    if not wanted:
        return Calibration(absent="model.answering.calibrate is off")
    read = [prediction for prediction in validation if prediction.predicted is not None]
    if not read:
        return Calibration(absent="the run has no validation videos")
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    scores = np.array([prediction.log_likelihoods for prediction in read], dtype=np.float64)
    truth = np.array([names.index(prediction.label) for prediction in read])
    right = scores[np.arange(len(read)), truth]
    if (right >= scores.max(1)).all():
        why = f"all {len(read)} validation videos are right, so the best fit would be certainty"
        return Calibration(absent=why, validation_videos=len(read))

    def nll(sharpness: float) -> float:
        return float((logsumexp(sharpness * scores, axis=1) - sharpness * right).mean())

    def loss(log: float) -> float:
        return len(read) * nll(math.exp(log)) + (log / SPREAD) ** 2 / 2

    # the likelihood alone is convex in 1 / temperature; with the prior a grid finds the right valley first
    grid = np.linspace(-math.log(HOTTEST), math.log(HOTTEST), 185)
    place = int(np.clip(np.argmin([loss(log) for log in grid]), 1, len(grid) - 2))
    bounds = (grid[place - 1], grid[place + 1])
    fit = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    raw = Calibration(math.exp(-fit.x), None, len(read), (nll(1.0), nll(math.exp(fit.x))))
    before, after = (expected_error(reliability(read, names)), expected_error(reliability(raw.apply(read), names)))
    return replace(raw, ece=(before, after))


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence.

    Args:
        low: lower bound of their confidence, exclusive.
        high: upper bound of their confidence, inclusive.
        count: number of answers.
        confidence: mean probability of the predicted class; None for an empty bin.
        accuracy: share of right answers; None for an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(predictions: Sequence[Prediction], names: Sequence[str], bins: int = BINS) -> list[Bin]:
    """Confidence against accuracy, of calibrated probabilities where the predictions have them.

    Args:
        predictions: predictions of test videos; videos that could not be read are left out.
        names: the classes.
        bins: number of bins, of equal width.
    """
    read = [prediction for prediction in predictions if prediction.predicted is not None]
    chances = np.array([max(p.calibrated or p.probabilities) for p in read])
    right = np.array([names[p.probabilities.index(max(p.probabilities))] == p.label for p in read], dtype=bool)
    number = np.clip(np.ceil(chances * bins).astype(int) - 1, 0, bins - 1)
    filled = []
    for place in range(bins):
        inside = number == place
        count = int(inside.sum())
        means = (float(chances[inside].mean()), float(right[inside].mean())) if count else (None, None)
        filled.append(Bin(place / bins, (place + 1) / bins, count, *means))
    return filled


def both_reliabilities(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, list[Bin]]:
    """Reliability of the raw probabilities, and of the calibrated ones where there are any, by their names."""
    raw = reliability([replace(prediction, calibrated=()) for prediction in predictions], names)
    if not any(prediction.calibrated for prediction in predictions):
        return {"as scored": raw}
    return {"as scored": raw, "calibrated": reliability(predictions, names)}


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the distance of accuracy from confidence, weighted by the videos of each bin."""
    total = max(1, sum(entry.count for entry in bins))
    parts = [entry.count * abs((entry.accuracy or 0.0) - (entry.confidence or 0.0)) for entry in bins]
    return math.fsum(parts) / total


def read_calibration(content: Mapping[str, Any] | None, where: object) -> Calibration:
    """What a run recorded; None is a run from before there was calibration."""
    if content is None:
        return Calibration(absent="the run was tested before calibration was recorded; test it again for one")
    return Calibration.from_json(content, where)
