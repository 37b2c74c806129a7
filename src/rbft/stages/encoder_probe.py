"""The stage that fits a linear classifier to what a frozen video encoder makes of the clips; the model is not asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rbft.data.records import VideoRecord
from rbft.encoders.loading import EncoderFiles
from rbft.evaluation.linear_probe import cross_fit_features
from rbft.ranks import first_rank
from rbft.runs.names import VALIDATION
from rbft.stages.context import StageContext, StageResult, make_trainer
from rbft.stages.fitted_beside import describe_choice, labelled_videos, leave_fitted
from rbft.stages.score import TESTED
from rbft.training.clip_encoder import ClipEncoder


def encoder_probe(context: StageContext) -> StageResult:
    """Encode all videos, fit a linear classifier to the labelled ones, test it.

    Training and validation videos are labelled alike: the penalty is chosen on folds of both, and then all are fitted
    to. What an interrupted stage has encoded is kept with the visual features (`data.cache_features`).
    """
    module, data = context.entry.module, context.entry.datamodule
    trainer = make_trainer(context)
    labelled = labelled_videos(data)
    records = list(dict.fromkeys((*labelled.records, *data.splits.test)))
    settings = module.encoder
    assert settings.folder is not None, "checked before the run"
    files = EncoderFiles(settings.folder)
    encoder = ClipEncoder(files, module.dtype_, data, records)
    with context.loop(trainer):
        trainer.predict(encoder, return_predictions=False)
    encoded = encoder.gather(trainer.world_size)

    def of(chosen: Sequence[VideoRecord]) -> NDArray[np.float64]:
        return np.array([settings.of(encoded[record.id]) for record in chosen])

    crossed = cross_fit_features(of(labelled.records), labelled.truth, labelled.groups, len(data.labels))
    width = len(settings.of(np.zeros_like(next(iter(encoded.values())))))
    answered = np.exp(crossed.fitted.log_probabilities(of(data.splits.test).reshape(-1, width)))
    summary = leave_fitted(context, trainer, labelled, crossed, answered)
    if first_rank():
        context.console.print(
            f"  linear classifier on {width} features ({settings.features}) of {len(labelled.records)} labelled "
            f"videos, {describe_choice(crossed)}"
        )
    more = {"encoder": files.family.name, "frames": files.frames, "features": width}
    return StageResult((*TESTED, VALIDATION), {**summary, **more})
