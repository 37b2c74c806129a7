"""The further passes of a test: degraded clips, and other videos after the same rationales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import lightning as L

from rbft.answering.choice import Choice
from rbft.data.records import VideoRecord
from rbft.evaluation.predictions import Prediction
from rbft.stages.context import StageContext, connect

Figures = dict[str, float | None]


def test_again(context: StageContext, trainer: L.Trainer, choice: Choice) -> Figures:
    """Figures of the passes that `model.robustness` asks for, for metrics.json.

    After the test's own pass, with the same weights and the same way of answering; the rationales of degraded clips
    are written anew, those of swapped videos are not.

    Args:
        context: the stage.
        trainer: trainer of the stage, in its loop.
        choice: how the test answered.

    Returns:
        `degraded_<name>/accuracy` for each degradation, and what `swap_figures` gives; unreadable videos count as wrong
        in the former, as they do in the test's accuracy.
    """
    module, data = context.entry.module, context.entry.datamodule
    settings, scoring, names = module.robustness, module.scoring, data.labels.names
    if not settings.passes:
        return {}
    own, texts, figures = module.predictions, scoring.written, Figures()
    seconds, tokens = dict(scoring.seconds), scoring.tokens_written
    rows, spec = scoring.examples(data.splits.test, reasoned=module.answering.writes), data.spec
    for control in settings.ladder:
        data.spec = replace(spec, control=control)
        connect(context, trainer, test=rows)
        trainer.test(module, datamodule=data, verbose=False)
        answered = choice.applied(module.predictions, names)
        right = sum(prediction.predicted == prediction.label for prediction in answered)
        figures[f"degraded_{control}/accuracy"] = right / (len(answered) + len(data.unreadable))
    data.spec = spec
    if settings.swap:
        shown = partners(data.splits.test)
        scoring.fix_rationales({shown[name].id: written for name, written in texts.items()})
        connect(context, trainer, test=rows)
        trainer.test(module, datamodule=data, verbose=False)
        scoring.fix_rationales(None)
        figures |= swap_figures(own, {p.id: p for p in module.predictions}, shown, names)
    # what answering costs is what the test's own pass did
    scoring.seconds, scoring.tokens_written = seconds, tokens
    return figures


def partners(records: Sequence[VideoRecord]) -> dict[str, VideoRecord]:
    """The video shown in the place of each, by the id of the latter: every video stands in once.

    It is of another class wherever no class has more than half of the videos.
    """
    ordered = sorted(records, key=lambda record: record.label)
    labels = [record.label for record in ordered]
    step = max((labels.count(label) for label in set(labels)), default=0)
    return {record.id: ordered[(place + step) % len(ordered)] for place, record in enumerate(ordered)}


def swap_figures(
    own: Sequence[Prediction], swapped: Mapping[str, Prediction], shown: Mapping[str, VideoRecord], names: Sequence[str]
) -> Figures:
    """How answers after a fixed rationale change with the video; of videos that another class stands in for.

    Args:
        own: predictions with their own video, with answers after a rationale.
        swapped: predictions after the same rationales, by the id of the video that was shown.
        shown: video that was shown in the place of each, by the id of the latter.
        names: the classes.

    Returns:
        `swapped_video/accuracy`: share still answered with the class of the rationale's own video; `/unchanged`: share
        with the same answer as before; `/follows_video`: share with the class of the video that was shown. None where
        there is no such video.
    """

    def said(prediction: Prediction) -> str:
        chances = prediction.answers["rationale"]
        return names[chances.index(max(chances))]

    triples = [
        (prediction, said(swapped[shown[prediction.id].id]), shown[prediction.id].label)
        for prediction in own
        if shown[prediction.id].label != prediction.label
    ]

    def share(hits: Sequence[bool]) -> float | None:
        return sum(hits) / len(hits) if hits else None

    return {
        "swapped_video/accuracy": share([now == before.label for before, now, _ in triples]),
        "swapped_video/unchanged": share([now == said(before) for before, now, _ in triples]),
        "swapped_video/follows_video": share([now == other for _, now, other in triples]),
    }
