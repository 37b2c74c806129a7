"""The way of answering that labelled videos choose, and predictions as it has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rbft.answering.settings import Answering, Mode
from rbft.evaluation.predictions import Prediction, accuracy_and_nll


@dataclass(frozen=True)
class Choice:
    """What test videos are answered with.

    Args:
        mode: way of answering.
        mixture_weight: weight of the answer after its own rationale.
        strength: strength of the tuning.
        validation_accuracy: accuracy on the labelled videos that chose; None where nothing had to be chosen.
        validation_nll: Mean negative log-probability of the right class there.
        gate: of mode `gated`: probability from which on a direct answer stands.
        validation_reasoned: share of the labelled videos that a chosen gate writes about; None where none was chosen.
    """

    mode: Mode
    mixture_weight: float
    strength: float
    validation_accuracy: float | None = None
    validation_nll: float | None = None
    gate: float | None = None
    validation_reasoned: float | None = None

    def applied(self, predictions: Sequence[Prediction], names: Sequence[str]) -> list[Prediction]:
        """The predictions as this way of answering gives them; `names` are the classes."""
        return [answer(prediction, self, names) for prediction in predictions]


def mix(prediction: Prediction, weight: float) -> tuple[float, ...]:
    """Probabilities of both modes, `weight` on the answer after its own rationale."""
    pairs = zip(prediction.answers["direct"], prediction.answers["rationale"], strict=True)
    return tuple((1 - weight) * direct + weight * reasoned for direct, reasoned in pairs)


def stands(prediction: Prediction, gate: float) -> bool:
    """Whether a gate lets the direct answer stand."""
    return max(prediction.answers["direct"]) >= gate


def answer(prediction: Prediction, choice: Choice, names: Sequence[str]) -> Prediction:
    """The prediction as a choice gives it; the answers of all modes stay, the mixture by halves if need be."""
    if not prediction.answers:
        return prediction
    answers = dict(prediction.answers)
    if "rationale" in answers:
        answers["mixture"] = mix(prediction, choice.mixture_weight if choice.mode == "mixture" else 0.5)
        if choice.gate is not None:
            answers["gated"] = answers["direct" if stands(prediction, choice.gate) else "rationale"]
    if choice.mode == "direct":
        return replace(prediction, answers=answers)
    chances = answers[choice.mode]
    scores = tuple(math.log(max(chance, 1e-300)) for chance in chances)
    predicted = names[max(range(len(chances)), key=chances.__getitem__)]
    return replace(prediction, predicted=predicted, probabilities=chances, log_likelihoods=scores, answers=answers)


def unchosen(settings: Answering, strength: float) -> Choice:
    """The choice where nothing is left open."""
    mode, weight = settings.ways[0]
    return Choice(mode, weight, strength, gate=settings.gate)


def choose(settings: Answering, labelled: Mapping[float, Sequence[Prediction]], names: Sequence[str]) -> Choice:
    """The candidate that is right most often; of equals the one that writes least, then gives the right class most.

    Args:
        settings: settings to choose from.
        labelled: predictions of the labelled videos that decide, by strength.
        names: The classes.
    """
    choices = [
        _judged(candidate, predictions, names)
        for strength, predictions in labelled.items()
        for candidate in _candidates(settings, strength, predictions)
    ]
    # of what is equal in all, the first: the simplest mode and the least strength
    return max(
        choices,
        key=lambda choice: (
            choice.validation_accuracy or 0.0,
            -(choice.validation_reasoned or 0.0),
            -(choice.validation_nll or 0.0),
        ),
    )


def _candidates(settings: Answering, strength: float, predictions: Sequence[Prediction]) -> list[Choice]:
    ways = [Choice(mode, weight, strength, gate=settings.gate) for mode, weight in settings.ways]
    if not settings.opens_gate:
        return ways
    return [replace(ways[0], gate=gate) for gate in gates(predictions, settings.shares)]


def gates(predictions: Sequence[Prediction], shares: Sequence[float]) -> list[float]:
    """For each share the gate that writes about so many of the videos, or fewer where probabilities are equal.

    A gate lies in the middle between the probabilities of two videos; 0 writes about none, and 1 about all whose direct
    answer has not all of the probability.
    """
    sure = sorted(max(prediction.answers["direct"]) for prediction in predictions)
    bounds = [0.0, *((low + high) / 2 for low, high in pairwise(sure)), 1.0]
    return [bounds[int(share * len(sure) + 1e-9)] for share in shares]


def _judged(choice: Choice, predictions: Sequence[Prediction], names: Sequence[str]) -> Choice:
    """The choice with what it gives on labelled videos."""
    right, nll = accuracy_and_nll(choice.applied(predictions, names), names)
    share = None
    if choice.gate is not None:
        share = sum(not stands(prediction, choice.gate) for prediction in predictions) / len(predictions)
    return replace(choice, validation_accuracy=right, validation_nll=nll, validation_reasoned=share)
