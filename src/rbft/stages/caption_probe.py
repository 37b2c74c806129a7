"""The stage that classifies videos by the model's own descriptions alone: nothing of the model is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from rbft.data.records import VideoRecord
from rbft.evaluation.text_probe import cross_fit_texts
from rbft.ranks import first_rank, wait_for_all
from rbft.rationales.checks.wording import words
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import Attempt
from rbft.runs.names import RATIONALES, VALIDATION
from rbft.stages.context import StageContext, StageResult, set_up
from rbft.stages.fitted_beside import describe_choice, labelled_videos, leave_fitted
from rbft.stages.score import TESTED
from rbft.stages.write import write_what_is_left


def caption_probe(context: StageContext) -> StageResult:
    """Have the model describe all videos without their labels, fit a text classifier to the labelled ones, test it.

    Training and validation videos are labelled alike: the penalty is chosen on folds of both, and then all are fitted
    to. What an interrupted stage has written is kept.
    """
    module, data = context.entry.module, context.entry.datamodule
    trainer = set_up(context)
    labelled = labelled_videos(data)
    records = list(dict.fromkeys((*labelled.records, *data.splits.test)))
    store, attempt = RationaleStore(context.folder), Attempt(0, hinted=False, temperature=module.writer.temperature)
    write_what_is_left(context, trainer, store, attempt, records)
    written = store.collect(records, module.writer.numbers(attempt))
    texts: dict[str, list[str]] = {}
    for rationale in written:
        texts.setdefault(rationale.id, []).append(rationale.written)

    def of(chosen: Sequence[VideoRecord]) -> list[list[str]]:
        return [texts[record.id] for record in chosen]

    classes = len(data.labels)
    crossed = cross_fit_texts(of(labelled.records), labelled.truth, labelled.groups, classes, words)
    answered = crossed.fitted.probabilities(of(data.splits.test))
    summary = leave_fitted(context, trainer, labelled, crossed, answered, texts)
    if first_rank():
        store.save(written)
        context.console.print(
            f"  text classifier on {module.writer.samples} description(s) of each of {len(labelled.records)} labelled "
            f"videos, {describe_choice(crossed)}"
        )
        for rationale in written[:: max(1, len(written) // 3)][:3]:
            context.console.print(f"  {escape(rationale.video)}: {escape(rationale.written)}", soft_wrap=True)
    wait_for_all()
    return StageResult((*TESTED, VALIDATION, RATIONALES), {**summary, "descriptions": len(written)})
