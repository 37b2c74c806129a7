"""The stage in which a text classifier, fitted to the kept rationales, concludes from what a test has written."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.errors import StageError
from rbft.evaluation.predictions import read_predictions
from rbft.evaluation.text_probe import cross_fit_texts
from rbft.ranks import first_rank, wait_for_all
from rbft.rationales.checks.wording import words
from rbft.rationales.store import Rationale, read_rationales
from rbft.runs.names import PREDICTIONS, RATIONALES, VALIDATION
from rbft.stages.context import StageContext, StageResult, make_trainer
from rbft.stages.fitted_beside import describe_choice, labelled_as, leave_fitted
from rbft.stages.score import TESTED


def rationale_probe(context: StageContext) -> StageResult:
    """Fit a text classifier to the kept rationales of the labelled videos, and classify the texts of the test before.

    Both are without the sentence that states the class. The classifier is that of `caption_probe`. Nothing is written
    or computed with the model.

    Raises:
        StageError: A test video has no text, or the kept rationales are of one class only.
    """
    stage, data = context.entry.stage, context.entry.datamodule
    trainer = make_trainer(context)
    kept = kept_texts(read_rationales(context.run_dir / (stage.rationales_from or "") / RATIONALES))
    labelled = labelled_as(data, [record for record in data.splits.train if record.id in kept])
    if len(found := {record.label for record in labelled.records}) < 2:
        raise StageError(
            f"the rationales that the stage {stage.rationales_from!r} kept are of {', '.join(found) or 'no class'} "
            "alone, and a classifier needs texts of two classes; look at its rationales.jsonl, and keep more of them "
            "(model.keep)."
        )
    path = context.run_dir / stage.predictions_from[0] / PREDICTIONS
    texts = {said.id: [said.rationale] for said in read_predictions(path) if said.rationale is not None}
    if missing := [record.id for record in data.splits.test if record.id not in texts]:
        raise StageError(
            f"{path} has no text about {missing[0]!r}; run the stage {stage.predictions_from[0]!r} again with "
            "--restart."
        )
    fitted_to = [kept[record.id] for record in labelled.records]
    crossed = cross_fit_texts(fitted_to, labelled.truth, labelled.groups, len(data.labels), words)
    answered = crossed.fitted.probabilities([texts[record.id] for record in data.splits.test])
    summary = leave_fitted(context, trainer, labelled, crossed, answered, kept | texts)
    if first_rank():
        context.console.print(
            f"  text classifier on the kept rationales of {len(labelled.records)} labelled videos, "
            f"{describe_choice(crossed)}"
        )
    wait_for_all()
    return StageResult((*TESTED, VALIDATION), summary)


def kept_texts(rationales: Sequence[Rationale]) -> dict[str, list[str]]:
    """What stage 1 learns to say of each labelled video, by its id, without the sentence that states the class."""
    texts: dict[str, list[str]] = {}
    for rationale in rationales:
        if rationale.kept and rationale.labelled:
            texts.setdefault(rationale.id, []).append(rationale.text)
    return texts
