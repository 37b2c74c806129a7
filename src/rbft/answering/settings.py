"""How a test video's class is found, directly or after the model's own rationale, and how the answers are tried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbft.errors import ConfigError
from rbft.video.clip_spec import ClipControl
from rbft.vlm.generation import Sampling

Mode = Literal["direct", "rationale", "mixture", "gated", "argued"]

MIXTURES = tuple(tenth / 10 for tenth in range(1, 10))
"""Weights of the answer after its own rationale that are tried where labelled videos decide on the mixture."""
SHARES = tuple(tenth / 10 for tenth in range(11))
"""Shares of the labelled videos that the thresholds write about which are tried where those videos decide on one."""


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
            direct answer is unsure, see `gate`. `argued` has the model argue for each class in turn and scores the
            classes with their rationales, see `rbft.answering.arguing.Arguer`.
        samples: Rationales written for each video; their probabilities are averaged (self-consistency over a closed
            set, Wang et al., arXiv 2203.11171).
        temperature: 0 writes the likeliest text; more than one sample needs a temperature above 0.
        top_p: Sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: Length limit of a rationale, in tokens.
        mixture_weight: weight of the answer after its own rationale; None: chosen on validation.
        gate: of mode `gated`: a direct answer whose likeliest class has at least this probability stands, and nothing
            is written about its video (as a cascade of classifiers stops where it is sure: FrugalGPT, Chen et al.,
            arXiv 2305.05176, section 3). None: chosen on labelled videos, the one that is right most often, and of
            equals the one that writes least.
        most_reasoned: of a gate that is chosen: most of the labelled videos, as a share, that it may write about (the
            budget of the same section).
        choose_on: labelled videos that decide on what is left open: `validation` or `crossfit`, as in that mode.
        most_argued: of mode `argued`: most classes of a video that are argued for, the likeliest by its direct answer;
            the others keep their direct probability.
        strength: How far the weights go from the base model (0) to the tuned one (1), on a straight line between both
            (WiSE-FT, Wortsman et al., arXiv 2109.01903); for LoRA it scales the adapter. None: chosen on validation.
        strengths: strengths that are tried where validation chooses.
        calibrate: Whether a temperature for the probabilities is fitted on the validation videos (Guo et al.,
            arXiv 1706.04599), which are scored for it; without any there is none. It changes no predicted class.
    """

    mode: Literal["direct", "rationale", "mixture", "validation", "crossfit", "gated", "argued"] = "direct"
    mixture_weight: float | None = None
    strength: float | None = 1.0
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    calibrate: bool = True
    gate: float | None = None
    most_reasoned: float = 1.0
    choose_on: Literal["validation", "crossfit"] = "validation"
    most_argued: int = 8

    key = "model.answering"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixture_weight is not None and not 0 <= self.mixture_weight <= 1:
            raise ConfigError(f"model.answering.mixture_weight: {self.mixture_weight} must lie in [0, 1].")
        if self.gate is not None and not 0 <= self.gate <= 1:
            raise ConfigError(f"model.answering.gate: {self.gate} must lie in [0, 1].")
        if self.mode != "gated" and self.gate is not None:
            raise ConfigError(
                f"model.answering.gate: {self.gate} is for mode gated, and the mode is {self.mode}; set mode: gated, "
                "or leave the gate out."
            )
        if not 0 <= self.most_reasoned <= 1:
            raise ConfigError(f"model.answering.most_reasoned: {self.most_reasoned} must lie in [0, 1].")
        if self.most_reasoned < 1 and not self.opens_gate:
            raise ConfigError(
                f"model.answering.most_reasoned: {self.most_reasoned} bounds the choice of a gate; set mode: gated and "
                "gate: null, or leave it out."
            )
        if self.most_argued < 2:
            raise ConfigError(f"model.answering.most_argued: {self.most_argued} must be at least 2 classes.")
        if self.mode == "argued" and self.samples > 1:
            raise ConfigError(
                f"model.answering.samples: {self.samples} are for modes that average rationales, and mode argued "
                "writes one for each class; leave samples out."
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
    def opens_gate(self) -> bool:
        """Whether labelled videos decide on the threshold of mode `gated`."""
        return self.mode == "gated" and self.gate is None

    @property
    def crossfits(self) -> bool:
        """Whether out-of-fold answers about all labelled videos decide."""
        return self.mode == "crossfit" or self.choose_on == "crossfit"

    @property
    def needs_validation(self) -> bool:
        """Whether validation videos decide on something."""
        if self.crossfits:
            return False
        mixed = self.mode == "mixture" and self.mixture_weight is None
        return self.mode == "validation" or self.strength is None or mixed or self.opens_gate

    def tried_strengths(self, *, tuned: bool) -> tuple[float, ...]:
        """Strengths to compare; there is nothing between the base model and itself."""
        if not tuned:
            return (1.0,)
        return self.strengths if self.strength is None else (self.strength,)

    def tried(self, *, tuned: bool) -> int:
        """The number of settings that labelled videos choose from; 1 where nothing is chosen."""
        ways = len(self.shares) if self.opens_gate else len(self.ways)
        return ways * len(self.tried_strengths(tuned=tuned))

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the labelled videos that the thresholds to choose from write about."""
        return tuple(share for share in SHARES if share <= self.most_reasoned)

    @property
    def ways(self) -> list[tuple[Mode, float]]:
        """Modes with the weight of the answer after its own rationale, the simplest first."""
        weights = MIXTURES if self.mixture_weight is None else (self.mixture_weight,)
        mixtures: list[tuple[Mode, float]] = [("mixture", weight) for weight in weights]
        direct: tuple[Mode, float] = ("direct", 0.0)
        rationale: tuple[Mode, float] = ("rationale", 1.0)
        gated: tuple[Mode, float] = ("gated", 1.0)
        argued: tuple[Mode, float] = ("argued", 1.0)
        return {
            "direct": [direct],
            "rationale": [rationale],
            "mixture": mixtures,
            "gated": [gated],
            "argued": [argued],
            "validation": [direct, rationale, *mixtures],
            "crossfit": [direct, rationale, *mixtures],
        }[self.mode]


@dataclass(frozen=True)
class Robustness:
    """Further passes of a test over its videos, at the chosen strength and way of answering.

    Args:
        ladder: degradations of the clips, each a pass of its own: `dropped`, `blurred`, `shuffled`, `reversed`, `blank`
            (the protocol of arXiv 2606.22862). An answer that stays right on blank clips was not read off the video.
        swap: whether each video's own rationale is kept, and the classes are scored after it with a video of another
            class shown. Answers that do not change rest on the text alone.
    """

    ladder: tuple[ClipControl, ...] = ()
    swap: bool = False

    def __post_init__(self) -> None:
        if "none" in self.ladder or len(set(self.ladder)) < len(self.ladder):
            raise ConfigError(
                f"model.robustness.ladder: {list(self.ladder)} must name different degradations, not none."
            )

    @property
    def passes(self) -> int:
        """Passes over the test videos beside the test's own."""
        return len(self.ladder) + self.swap
