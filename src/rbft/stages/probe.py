"""The stage that fits a linear probe to the frozen model's visual features and tests it like any other classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.evaluation.calibration import fit_temperature
from rbft.evaluation.linear_probe import choose_strength, fit_probe
from rbft.evaluation.predictions import Prediction, probabilities, write_predictions
from rbft.ranks import first_rank
from rbft.runs.names import VALIDATION
from rbft.stages.context import StageContext, StageResult, connect, set_up
from rbft.stages.fitted_beside import labelled_as
from rbft.stages.score import TESTED, leave_test


def probe(context: StageContext) -> StageResult:
    """Encode the training, validation and test videos, fit the probe to the first, choose on the second, test."""
    module, data = context.entry.module, context.entry.datamodule
    trainer = set_up(context)
    splits, prompt = data.splits, context.entry.book.label_prompt()
    records = list(dict.fromkeys((*splits.train, *splits.val, *splits.test)))
    examples = [Example(record, prompt) for record in records]
    connect(context, trainer, predict=examples)
    pool = module.pool_features()
    with context.loop(trainer):
        trainer.predict(module, datamodule=data, return_predictions=False)
    pooled = pool.gather(examples, trainer.world_size)

    def of(chosen: Sequence[VideoRecord]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        features = np.array([pooled[record.id] for record in chosen])
        return features, np.array([data.labels.index(record.label) for record in chosen], dtype=np.int64)

    features, labels = of(splits.train)
    strength = choose_strength(
        features,
        labels,
        len(data.labels),
        of(splits.val) if splits.val else None,
        groups=labelled_as(data, splits.train).groups,
    )
    fitted = fit_probe(features, labels, len(data.labels), strength.value)
    names = data.labels.names

    def answers(chosen: Sequence[VideoRecord]) -> list[Prediction]:
        rows = fitted.log_probabilities(of(chosen)[0]).tolist() if chosen else []
        return [_prediction(record, row, names) for record, row in zip(chosen, rows, strict=True)]

    validated = answers(splits.val)
    calibration = fit_temperature(validated, names)
    metrics = leave_test(context, trainer, answers(splits.test), calibration)
    if first_rank():
        write_predictions(context.folder / VALIDATION, calibration.apply(validated))
        by = {"validation": f"{len(splits.val)} validation videos", "folds": "folds of the training videos"}
        why = f"chosen on {by[strength.chosen_on]}" if strength.chosen_on in by else "nothing to choose it by"
        context.console.print(
            f"  linear probe on {features.shape[1]} features of {len(labels)} videos, L2 {strength.value:g} ({why})"
        )
    summary = {
        "test/accuracy": metrics["test/accuracy"],
        "l2": strength.value,
        "chosen_on": strength.chosen_on,
        "chosen_accuracy": strength.accuracy,
        "chosen_nll": strength.nll,
        "features": features.shape[1],
        "rows": len(labels),
    }
    return StageResult((*TESTED, VALIDATION), summary)


def _prediction(record: VideoRecord, scores: Sequence[float], names: Sequence[str]) -> Prediction:
    chances = probabilities(scores)
    predicted = names[chances.index(max(chances))]
    return Prediction(record.id, record.video, record.label, predicted, chances, tuple(scores))
