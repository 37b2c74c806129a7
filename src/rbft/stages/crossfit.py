"""Cross-fitting: every labelled video is answered by weights that were trained without its group, to choose by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np

from rbft.data.datamodule import VideoDataModule
from rbft.data.records import VideoRecord
from rbft.evaluation.predictions import Prediction, read_predictions, write_predictions
from rbft.files import write_json, write_jsonl
from rbft.ranks import first_rank, wait_for_all
from rbft.rationales.store import read_rationales
from rbft.runs.names import ADAPTER, CHECKPOINTS, CONTRASTS, RATIONALES
from rbft.stages.context import StageContext, connect
from rbft.stages.read_stage import ReadStage
from rbft.stages.train import train
from rbft.training.callbacks import GracefulStop
from rbft.training.checkpoint import MANIFEST

FOLDS = "folds"
"""In a test's folder, the folder of what cross-fitting trained and answered."""
_DONE = "done.json"


def cross_fitted(
    context: StageContext, trainer: L.Trainer, strengths: Sequence[float]
) -> dict[float, list[Prediction]]:
    """Out-of-fold predictions of all labelled videos, by strength.

    For each fold the training stages before the test are run again, with the same settings, on the labelled videos
    outside of it; rationales are those of the run. What is finished is kept: an interrupted stage goes on with the fold
    and the step that it stopped at.

    Args:
        context: the test stage.
        trainer: its trainer.
        strengths: strengths of the tuning to answer at.
    """
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    labelled = data.splits.train
    folds = entry.fold_of
    assert folds is not None, "refused before"
    if not entry.trained_by:
        folds = np.zeros_like(folds)  # nothing is trained, so nothing has seen a label
    predictions: dict[float, dict[str, Prediction]] = {strength: {} for strength in strengths}
    number = int(folds.max()) + 1
    for fold in range(number):
        held = [record for record, place in zip(labelled, folds, strict=True) if place == fold]
        run_dir = context.folder / FOLDS / str(fold)
        paths = {strength: run_dir / f"predictions-{strength:g}.jsonl" for strength in strengths}
        if not all(path.is_file() for path in paths.values()):
            context.console.print(f"  fold {fold + 1} of {number}: {len(held)} of {len(labelled)} labelled videos")
            for before in entry.trained_by:
                _train_without(context, before, held, run_dir)
            source = entry.stage.weights_from
            module.unload()
            folder = None if source is None else run_dir / source / ADAPTER
            module.start_from(folder, entry.author, keep_base=tuple(strengths) != (1.0,))
            connect(context, trainer, val=module.scoring.examples(held, reasoned=module.answering.writes))
            for strength, path in paths.items():
                module.set_strength(strength)
                trainer.validate(module, datamodule=data, verbose=False)
                if first_rank():
                    write_predictions(path, module.predictions)
            wait_for_all()
        for strength, path in paths.items():
            predictions[strength] |= {prediction.id: prediction for prediction in read_predictions(path)}
    module.unload()
    return {strength: [by_id[record.id] for record in labelled] for strength, by_id in predictions.items()}


def _train_without(context: StageContext, before: ReadStage, held: Sequence[VideoRecord], run_dir: Path) -> None:
    """Run a training stage on the labelled videos that are not held back, unless that is done."""
    folder = run_dir / before.stage.name
    if (folder / _DONE).is_file():
        return
    ids = {record.id for record in held}
    source = before.stage.rationales_from
    if source is not None and first_rank():
        (run_dir / source).mkdir(parents=True, exist_ok=True)
        for name in (RATIONALES, CONTRASTS):
            if (context.run_dir / source / name).is_file():
                kept = [r for r in read_rationales(context.run_dir / source / name) if r.id not in ids]
                write_jsonl(run_dir / source / name, [vars(rationale) for rationale in kept])
    wait_for_all()
    data = _without(before.datamodule, ids)
    train(
        replace(
            context,
            entry=replace(before, datamodule=data),
            folder=folder,
            run_dir=run_dir,
            stop=GracefulStop(folder / CHECKPOINTS / MANIFEST, again=context.stop.again),
        )
    )
    before.module.unload()
    if first_rank():
        write_json(folder / _DONE, {"held": sorted(ids)})
    wait_for_all()


def _without(data: VideoDataModule, ids: set[str]) -> VideoDataModule:
    """The same data with some of its training videos held back."""
    other = copy.copy(data)
    splits = data.splits
    other.splits = replace(splits, train=tuple(record for record in splits.train if record.id not in ids))
    return other
