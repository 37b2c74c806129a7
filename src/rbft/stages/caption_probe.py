"""The stage that classifies videos by the model's own descriptions alone: nothing of the model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from rbft.data.records import VideoRecord
from rbft.data.shot_sampling import group_of
from rbft.evaluation.calibration import fit_temperature
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.evaluation.text_probe import cross_fit, fit_text_probe
from rbft.ranks import first_rank, wait_for_all
from rbft.rationales.checks.wording import words
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import Attempt
from rbft.runs.names import RATIONALES, VALIDATION
from rbft.stages.context import StageContext, StageResult, set_up
from rbft.stages.score import TESTED, leave_test
from rbft.stages.write import write_what_is_left


def caption_probe(context: StageContext) -> StageResult:
    """Have the model describe all videos without their labels, fit a text classifier to the labelled ones, test it.

    Training and validation videos are labelled alike: the penalty is chosen on folds of both, and then all are fitted
    to. What an interrupted stage has written is kept.
    """
    module, data = context.entry.module, context.entry.datamodule
    trainer = set_up(context)
    labelled = [*data.splits.train, *data.splits.val]
    records = list(dict.fromkeys((*labelled, *data.splits.test)))
    store, attempt = RationaleStore(context.folder), Attempt(0, hinted=False, temperature=module.writer.temperature)
    write_what_is_left(context, trainer, store, attempt, records)
    written = store.collect(records, module.writer.numbers(attempt))
    texts: dict[str, list[str]] = {}
    for rationale in written:
        texts.setdefault(rationale.id, []).append(rationale.written)

    def of(chosen: Sequence[VideoRecord]) -> list[list[str]]:
        return [texts[record.id] for record in chosen]

    names = data.labels.names
    truth = np.array([data.labels.index(record.label) for record in labelled], dtype=np.int64)
    groups = [":".join(group_of(record)) for record in labelled]
    chosen = cross_fit(of(labelled), truth, groups, len(names), words)
    fitted = fit_text_probe(of(labelled), truth, len(names), chosen.strength, words)
    validated = [] if chosen.probabilities is None else _predictions(labelled, chosen.probabilities, texts, names)
    calibration = fit_temperature(validated, names)
    answered = _predictions(data.splits.test, fitted.probabilities(of(data.splits.test)), texts, names)
    metrics = leave_test(context, trainer, answered, calibration)
    if first_rank():
        store.save(written)
        write_predictions(context.folder / VALIDATION, calibration.apply(validated))
        why = "chosen on folds of them" if chosen.probabilities is not None else "nothing to choose it by"
        context.console.print(
            f"  text classifier on {module.writer.samples} description(s) of each of {len(labelled)} labelled videos, "
            f"L2 {chosen.strength:g} ({why})"
        )
        for rationale in written[:: max(1, len(written) // 3)][:3]:
            context.console.print(f"  {escape(rationale.video)}: {escape(rationale.written)}", soft_wrap=True)
    wait_for_all()
    summary = {
        "test/accuracy": metrics["test/accuracy"],
        "l2": chosen.strength,
        "chosen_on": chosen.chosen_on,
        "chosen_accuracy": chosen.accuracy,
        "chosen_nll": chosen.nll,
        "rows": len(labelled),
        "descriptions": len(written),
    }
    return StageResult((*TESTED, VALIDATION, RATIONALES), summary)


def _predictions(
    records: Sequence[VideoRecord],
    chances: NDArray[np.float64],
    texts: Mapping[str, Sequence[str]],
    names: Sequence[str],
) -> list[Prediction]:
    return [
        Prediction(
            record.id,
            record.video,
            record.label,
            names[int(row.argmax())],
            tuple(row.tolist()),
            tuple(np.log(np.maximum(row, 1e-300)).tolist()),
            "\n\n".join(texts[record.id]),
        )
        for record, row in zip(records, chances, strict=True)
    ]
