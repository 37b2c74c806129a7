"""The further passes of a test: degraded clips, and other videos behind the same rationales."""

from __future__ import annotations

from dataclasses import replace

import lightning as L

from rbft.answering.choice import Choice, answer
from rbft.answering.robustness import Figures, partners, swap_figures
from rbft.stages.context import StageContext, connect


def test_again(context: StageContext, trainer: L.Trainer, choice: Choice) -> Figures:
    """Figures of the passes that `model.robustness` asks for, for metrics.json.

    Behind the test's own pass, with the same weights and the same way of answering; the rationales of degraded clips
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
        answered = [answer(p, choice, names) for p in module.predictions]
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
