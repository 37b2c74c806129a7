"""The stage that mixes the model's answers with those of a probe that was fitted beside it; it computes nothing new."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rbft.errors import StageError
from rbft.evaluation.calibration import Calibration, fit_temperature
from rbft.evaluation.predictions import (
    Prediction,
    accuracy_and_nll,
    probabilities,
    read_predictions,
    write_predictions,
)
from rbft.experiment import Pool
from rbft.ranks import first_rank, wait_for_all
from rbft.runs.names import PREDICTIONS, VALIDATION
from rbft.stages.context import StageContext, StageResult, make_trainer
from rbft.stages.score import TESTED, leave_test

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
"""Weights of the probe's probabilities that are tried where labelled videos decide on one."""


@dataclass(frozen=True)
class Weighed:
    """How well a weight of the probe does on labelled videos.

    Args:
        weight: weight of the probe's probabilities.
        accuracy: share of the videos whose likeliest class is right.
        nll: mean negative log-probability of the right class in nats.
    """

    weight: float
    accuracy: float
    nll: float


def combine(context: StageContext) -> StageResult:
    """Mix the predictions of a test and of a probe before it, and leave the files of a test.

    The weight is the stage's, or the one that is right most often on the labelled videos that both answered, each by
    weights and by a classifier that had not seen it.

    Raises:
        StageError: The two did not answer the same videos, or none that the weight could be chosen on.
    """
    stage, names = context.entry.stage, context.entry.datamodule.labels.names
    trainer = make_trainer(context)
    folders = [context.run_dir / name for name in stage.predictions_from]
    labelled = _pairs(folders, VALIDATION) if all((folder / VALIDATION).is_file() for folder in folders) else []
    weight, chosen = stage.probe_weight, None
    if weight is None:
        if not labelled:
            raise StageError(
                f"the stage {stage.name!r}: no labelled video was answered by both {stage.predictions_from[0]!r} and "
                f"{stage.predictions_from[1]!r}, so nothing chooses stages.{stage.name}.probe_weight; state a number."
            )
        chosen = choose_weight(labelled, names, stage.pool)
        weight = chosen.weight
    mixed = [mix(*pair, weight, names, stage.pool) for pair in labelled]
    absent = Calibration(absent=f"no labelled video was answered by both {' and '.join(stage.predictions_from)}")
    calibration = fit_temperature(mixed, names) if mixed else absent
    tested = _pairs(folders, PREDICTIONS)
    answered = [mix(*pair, weight, names, stage.pool) for pair in tested]
    metrics = leave_test(context, trainer, answered, calibration)
    if first_rank():
        write_predictions(context.folder / VALIDATION, calibration.apply(mixed))
        why = "" if chosen is None else f", {chosen.accuracy:.1%} right on {len(labelled)} labelled videos"
        context.console.print(
            f"  {weight:g} of {stage.predictions_from[1]}, {1 - weight:g} of {stage.predictions_from[0]}{why}; "
            f"model {metrics['test/accuracy_model']:.1%}, probe {metrics['test/accuracy_probe']:.1%}"
        )
    wait_for_all()
    summary = {"test/accuracy": metrics["test/accuracy"], "probe_weight": weight, "labelled": len(labelled)}
    if chosen is not None:
        summary |= {"chosen_accuracy": chosen.accuracy, "chosen_nll": chosen.nll}
    return StageResult((*TESTED, VALIDATION), summary)


def mix(model: Prediction, probe: Prediction, weight: float, names: Sequence[str], pool: Pool = "linear") -> Prediction:
    """The weighted mean of both, `weight` on the probe's.

    Args:
        model: what the model says of a video; C probabilities.
        probe: what the probe says of it.
        weight: weight of the probe, in [0, 1].
        names: the C classes.
        pool: `linear`: of the probabilities (a linear opinion pool: Stone, The Opinion Pool, 1961). `logarithmic`: of
            their logarithms, scaled to sum to 1 (a logarithmic opinion pool: Genest and Zidek, Combining Probability
            Distributions, 1986).
    """
    pairs = list(zip(model.probabilities, probe.probabilities, strict=True))
    if pool == "linear":
        chances = tuple((1 - weight) * own + weight * other for own, other in pairs)
    else:
        chances = probabilities([(1 - weight) * _log(own) + weight * _log(other) for own, other in pairs])
    return replace(
        model,
        predicted=names[chances.index(max(chances))],
        probabilities=chances,
        log_likelihoods=tuple(map(_log, chances)),
        answers={"model": model.probabilities, "probe": probe.probabilities},
        calibrated=(),
    )


def _log(chance: float) -> float:
    """The logarithm of a probability, finite for 0, too."""
    return math.log(max(chance, 1e-300))


def choose_weight(
    labelled: Sequence[tuple[Prediction, Prediction]], names: Sequence[str], pool: Pool = "linear"
) -> Weighed:
    """The weight that is right most often; of equals the one with the highest likelihood, then the lowest."""
    tried = (_weigh(labelled, weight, names, pool) for weight in WEIGHTS)
    return max(tried, key=lambda found: (found.accuracy, -found.nll))


def _weigh(
    labelled: Sequence[tuple[Prediction, Prediction]], weight: float, names: Sequence[str], pool: Pool
) -> Weighed:
    right, nll = accuracy_and_nll([mix(*pair, weight, names, pool) for pair in labelled], names)
    # rounded, so that of equals none is better for how its sum is rounded
    return Weighed(weight, right, round(nll, 12))


def _pairs(folders: Sequence[Path], name: str) -> list[tuple[Prediction, Prediction]]:
    """What both said of each readable video; of labelled videos those that both answered.

    Raises:
        StageError: One of them has test videos that the other has not.
    """
    model, probe = ({p.id: p for p in read_predictions(folder / name) if p.probabilities} for folder in folders)
    if name == PREDICTIONS and model.keys() != probe.keys():
        odd = min(model.keys() ^ probe.keys())
        raise StageError(
            f"{folders[0] / name} and {folders[1] / name} are not of the same videos; {odd!r} is in one of them only. "
            "Test both again with --restart."
        )
    return [(prediction, probe[key]) for key, prediction in model.items() if key in probe]
