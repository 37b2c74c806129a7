"""Thresholds: from which probability on a class may be answered, so that it is right as often as needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rbft.errors import ConfigError, DataError
from rbft.evaluation.predictions import Prediction

CONFIDENCE = 0.95
"""With which the bound on a precision holds."""


@dataclass(frozen=True)
class Threshold:
    """The least probability at which a class is answered.

    Args:
        name: the class.
        wanted: precision that was asked for.
        probability: least probability, calibrated where the run is.
        precision: share of the validation videos at or above it that are of the class.
        bound: lower bound of the precision with 95% confidence (one-sided, Clopper and Pearson 1934), for all settings
            together that the answers were chosen from.
        recall: share of the class's validation videos that are at or above it.
        videos: number of validation videos at or above it.
    """

    name: str
    wanted: float
    probability: float
    precision: float
    bound: float
    recall: float
    videos: int

    def describe(self) -> str:
        """The threshold in one sentence."""
        return (
            f"{self.name} is answered from a probability of {self.probability:.4g} on: precision {self.precision:.1%} "
            f"of {self.videos} validation videos, at least {self.bound:.1%} with {CONFIDENCE:.0%} confidence, "
            f"recall {self.recall:.1%}"
        )


def choose_threshold(
    validation: Sequence[Prediction], names: Sequence[str], name: str, wanted: float, tried: int = 1
) -> Threshold:
    """The lowest threshold, before one that fails, whose precision is at least `wanted` with 95% confidence.

    Thresholds are tested one after the other from the strictest on, each by the exact binomial bound, until one fails:
    fixed-sequence testing, which keeps the confidence for the one that is chosen (learn then test, Angelopoulos et al.,
    arXiv 2110.01052). It starts where so many videos are above the threshold that the bound could hold at all.

    Where the same videos chose how they are answered, they look better than they are. So each bound holds for all
    settings that were tried at once, whichever was chosen (Bonferroni): the risk is divided by their number.

    Args:
        validation: predictions of videos that were not trained on; calibrated where the run is.
        names: the classes.
        name: the class that needs this precision.
        wanted: the precision, above 0 and below 1.
        tried: number of settings that these videos chose the answers from, weights of other epochs among them; 1 where
            nothing was chosen on them.

    Raises:
        ConfigError: There is no such class, or no such precision.
        DataError: The validation videos cannot support it; says what they do support.
    """
    if name not in names:
        raise ConfigError(
            f"--precision {name}={wanted:g}: no class of the run; classes: {', '.join(names[:10])}"
            f"{', ...' if len(names) > 10 else ''}."
        )
    if not 0 < wanted < 1:
        raise ConfigError(f"--precision {name}={wanted:g}: the precision must lie above 0 and below 1.")
    place = names.index(name)
    read = [prediction for prediction in validation if prediction.predicted is not None]
    from scipy.stats import beta

    ranked = sorted((((p.calibrated or p.probabilities)[place], p.label == name) for p in read), reverse=True)
    total = sum(right for _, right in ranked)
    risk = (1 - CONFIDENCE) / tried
    least = math.ceil(math.log(risk) / math.log(wanted))
    chosen: Threshold | None = None
    first: Threshold | None = None
    right = 0
    for count, (score, hit) in enumerate(ranked, start=1):
        right += hit
        ties = count < len(ranked) and ranked[count][0] == score
        if count < least or ties:
            continue
        bound = float(beta.ppf(risk, right, count - right + 1)) if right else 0.0
        passing = Threshold(name, wanted, score, right / count, bound, right / max(1, total), count)
        first = first or passing
        if bound < wanted:
            break
        chosen = passing
    if chosen is not None:
        return chosen
    have = (
        f"the run has {len(ranked)}"
        if first is None
        else (
            f"of the {first.videos} that score highest {first.precision:.1%} are, so the precision is only sure to be "
            f"{first.bound:.1%}"
        )
    )
    because = f" (the same videos chose the best of {tried} settings and epochs)" if tried > 1 else ""
    raise DataError(
        f"--precision {name}={wanted:g}: the validation videos cannot support it. At least {least} of them "
        f"must score highest for {name!r} and be of it{because}; {have}. Ask for less, or validate on more "
        "videos (data.val_shots, data.val_fraction)."
    )
