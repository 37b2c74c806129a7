"""How a test video's class is found: asked for directly, after the model's own rationale, or in both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction
from rbft.vlm.generation import Sampling

Mode = Literal["direct", "rationale", "mixture", "gated"]

MIXTURES = tuple(tenth / 10 for tenth in range(1, 10))
"""Weights of the answer after its own rationale that are tried where validation decides on the mixture."""


@dataclass(frozen=True)
class Answering(Sampling):
    """How test videos are answered.

    Args:
        mode: `direct` scores the labels after the label question; `rationale` has the model write a rationale first
            and scores the labels after it (chain of thought, Wei et al., arXiv 2201.11903); `mixture` is the weighted
            mean of both probabilities; `validation` takes what is right most often on the validation videos. `crossfit`
            takes what is right most often on all labelled videos, each answered by weights that were trained without
            its group, and then trains on all of them (cross-fitting, Chernozhukov et al., arXiv 1608.00060):
            validation videos train, too. All but `direct` report all modes. `gated` writes a rationale only where the
            direct answer is unsure, see `gate`.
        samples: Rationales written for each video; their probabilities are averaged (self-consistency over a closed
            set, Wang et al., arXiv 2203.11171).
        temperature: 0 writes the likeliest text; more than one sample needs a temperature above 0.
        top_p: Sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: Length limit of a rationale, in tokens.
        mixture_weight: weight of the answer after its own rationale; None: chosen on validation.
        gate: of mode `gated`: a direct answer whose likeliest class has at least this probability stands, and nothing
            is written about its video (as a cascade of classifiers stops where it is sure: FrugalGPT, Chen et al.,
            arXiv 2305.05176, section 3).
        strength: How far the weights go from the base model (0) to the tuned one (1), on a straight line between both
            (WiSE-FT, Wortsman et al., arXiv 2109.01903); for LoRA it scales the adapter. None: chosen on validation.
        strengths: strengths that are tried where validation chooses.
        calibrate: Whether a temperature for the probabilities is fitted on the validation videos (Guo et al.,
            arXiv 1706.04599), which are scored for it; without any there is none. It changes no predicted class.
    """

    mode: Literal["direct", "rationale", "mixture", "validation", "crossfit", "gated"] = "direct"
    mixture_weight: float | None = None
    strength: float | None = 1.0
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    calibrate: bool = True
    gate: float | None = None

    key = "model.answering"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixture_weight is not None and not 0 <= self.mixture_weight <= 1:
            raise ConfigError(f"model.answering.mixture_weight: {self.mixture_weight} must lie in [0, 1].")
        if self.gate is not None and not 0 <= self.gate <= 1:
            raise ConfigError(f"model.answering.gate: {self.gate} must lie in [0, 1].")
        if (self.mode == "gated") != (self.gate is not None):
            raise ConfigError(
                "model.answering: mode gated and gate belong together; state the probability from which on a direct "
                "answer stands, such as gate: 0.9, or leave both out."
            )
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ConfigError(f"model.answering.strength: {self.strength} must lie in [0, 1].")
        if not self.strengths or any(not 0 <= value <= 1 for value in self.strengths):
            raise ConfigError(f"model.answering.strengths: {list(self.strengths)} must be numbers in [0, 1].")

    @property
    def writes(self) -> bool:
        """Whether rationales are written for test videos."""
        return self.mode != "direct"

    @property
    def crossfits(self) -> bool:
        """Whether out-of-fold answers about all labelled videos decide."""
        return self.mode == "crossfit"

    @property
    def needs_validation(self) -> bool:
        """Whether validation videos decide on something."""
        if self.crossfits:
            return False
        mixed = self.mode == "mixture" and self.mixture_weight is None
        return self.mode == "validation" or self.strength is None or mixed

    def tried_strengths(self, *, tuned: bool) -> tuple[float, ...]:
        """Strengths to compare; there is nothing between the base model and itself."""
        if not tuned:
            return (1.0,)
        return self.strengths if self.strength is None else (self.strength,)

    def tried(self, *, tuned: bool) -> int:
        """The number of settings that labelled videos choose from; 1 where nothing is chosen."""
        return len(self.candidates) * len(self.tried_strengths(tuned=tuned))

    @property
    def candidates(self) -> list[tuple[Mode, float]]:
        """Modes with the weight of the answer after its own rationale, the simplest first."""
        weights = MIXTURES if self.mixture_weight is None else (self.mixture_weight,)
        mixtures: list[tuple[Mode, float]] = [("mixture", weight) for weight in weights]
        direct: tuple[Mode, float] = ("direct", 0.0)
        rationale: tuple[Mode, float] = ("rationale", 1.0)
        gated: tuple[Mode, float] = ("gated", 1.0)
        return {
            "direct": [direct],
            "rationale": [rationale],
            "mixture": mixtures,
            "gated": [gated],
            "validation": [direct, rationale, *mixtures],
            "crossfit": [direct, rationale, *mixtures],
        }[self.mode]


@dataclass(frozen=True)
class Choice:
    """What test videos are answered with.

    Args:
        mode: way of answering.
        mixture_weight: weight of the answer after its own rationale.
        strength: strength of the tuning.
        validation_accuracy: accuracy on the validation videos; None where nothing had to be chosen.
        validation_nll: Mean negative log-probability of the right class there.
    """

    mode: Mode
    mixture_weight: float
    strength: float
    validation_accuracy: float | None = None
    validation_nll: float | None = None


def mix(prediction: Prediction, weight: float) -> tuple[float, ...]:
    """Probabilities of both modes, `weight` on the answer after its own rationale."""
    pairs = zip(prediction.answers["direct"], prediction.answers["rationale"], strict=True)
    return tuple((1 - weight) * direct + weight * reasoned for direct, reasoned in pairs)


def answer(prediction: Prediction, mode: Mode, weight: float, names: Sequence[str]) -> Prediction:
    """The prediction as a mode gives it; the answers of all modes stay beside it, the mixture by halves if need be."""
    if not prediction.answers:
        return prediction
    answers = dict(prediction.answers)
    if "rationale" in answers:
        answers["mixture"] = mix(prediction, weight if mode == "mixture" else 0.5)
    if mode == "direct":
        return replace(prediction, answers=answers)
    chances = answers[mode]
    scores = tuple(math.log(max(chance, 1e-300)) for chance in chances)
    predicted = names[max(range(len(chances)), key=chances.__getitem__)]
    return replace(prediction, predicted=predicted, probabilities=chances, log_likelihoods=scores, answers=answers)


def choose(settings: Answering, validation: Mapping[float, Sequence[Prediction]], names: Sequence[str]) -> Choice:
    """The candidate that is right most often on validation; of equals the one that gives the right class most.

    Args:
        settings: settings to choose from.
        validation: The validation videos' predictions, by strength.
        names: The classes.
    """
    choices: list[Choice] = []
    for strength, predictions in validation.items():
        for mode, weight in settings.candidates:
            answers = [answer(prediction, mode, weight, names) for prediction in predictions]
            right = sum(prediction.predicted == prediction.label for prediction in answers)
            likely = [prediction.probabilities[names.index(prediction.label)] for prediction in answers]
            nll = -sum(math.log(max(chance, 1e-300)) for chance in likely) / len(answers)
            choices.append(Choice(mode, weight, strength, right / len(answers), nll))
    # of what is equal in both, the first: the simplest mode and the least strength
    return max(choices, key=lambda choice: (choice.validation_accuracy or 0.0, -(choice.validation_nll or 0.0)))
