"""The stage that has the model answer training clips after its own rationales: soft labels to distil from."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.markup import escape

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.ranks import first_rank
from rbft.rationales.soft_labels import SoftLabel, SoftLabelStore
from rbft.rationales.writer import seed_of
from rbft.runs.names import SOFT_LABELS
from rbft.stages.context import StageContext, StageResult, connect, set_up
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM


def _view_name(record: VideoRecord, view: int) -> str:
    return record.id if view == 0 else f"{record.id}#{view}"


def _views(context: StageContext, records: Sequence[VideoRecord]) -> list[tuple[Example, int]]:
    """The question for a rationale about each view of each video: as a test takes its frames, then drawn ones."""
    entry, prompt = context.entry, context.entry.book.blind_prompt()
    seed = entry.seed
    return [
        (Example(record, prompt, frames_seed=seed_of(seed, _view_name(record, view)) if view else None), view)
        for record in records
        for view in range(entry.stage.views)
    ]


def answer_clips(context: StageContext) -> StageResult:
    """Answer every training and unlabelled clip after rationales of its own; what an earlier try answered stays."""
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    store, author = SoftLabelStore(context.folder), context.entry.author
    strength = module.answering.strength
    assert strength is not None, "refused before"
    trainer = set_up(context, keep_base=strength != 1)
    module.set_strength(strength)
    records = [*data.splits.train, *data.unlabelled_videos]
    done = store.written()
    left = [(example, view) for example, view in _views(context, records) if (example.record.id, view) not in done]
    names = list(data.labels.names)

    def answer(vlm: VLM, batch: Batch) -> None:
        asked = [left[index] for index in batch.indices]
        keys = [_view_name(example.record, view) for example, view in asked]
        answers = [
            SoftLabel(
                id=example.record.id,
                view=view,
                video=example.record.video,
                label=example.record.label,
                frames_seed=example.frames_seed,
                model=author,
                classes=names,
                probabilities=list(found.probabilities),
                texts=list(found.texts),
            )
            for (example, view), found in zip(asked, module.scoring.reasoned(vlm, batch.prompts, keys), strict=True)
        ]
        # clips of weight 0 only fill up a batch
        real = [row for row, weight in enumerate(batch.weights.tolist()) if weight > 0]
        store.append([answers[row] for row in real], trainer.global_rank)

    if left:
        connect(context, trainer, predict=[example for example, _ in left])
        module.predict_by(answer)
        with context.loop(trainer):
            trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier()
    if not first_rank():
        return StageResult(())
    answers = store.collect(records, entry.stage.views)
    store.save(answers)
    return StageResult((SOFT_LABELS,), _report(context, answers))


def _report(context: StageContext, answers: Sequence[SoftLabel]) -> dict[str, Any]:
    """Print how sure and how right the answers are; gives the figures of the stage."""
    known = [answer for answer in answers if answer.label]
    right = sum(answer.predicted == answer.label for answer in known)
    sure = fmean(max(answer.probabilities) for answer in answers)
    summary = {
        "videos": len({answer.id for answer in answers}),
        "clips": len(answers),
        "labelled": len(known),
        "right": right,
        "mean_confidence": round(sure, 4),
        "unlabelled": len({answer.id for answer in answers if not answer.label}),
    }
    say = context.console.print
    say(
        f"  {len(answers)} clips of {summary['videos']} videos answered; {right} of {len(known)} labelled ones "
        f"rightly; the likeliest class has {sure:.1%} on average"
    )
    shown = answers[:: max(1, len(answers) // 3)][:3]
    for answer in shown:
        text = answer.texts[0] if answer.texts else ""
        say(f"  {escape(answer.video)}: {escape(answer.predicted)}, after: {escape(text)}", soft_wrap=True)
    return summary
