"""What goes into TensorBoard beside the scalars: rationales under their frames, and confusion matrices."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from rbft.data.datamodule import VideoDataModule
from rbft.data.labels import LabelSet
from rbft.evaluation.calibration import both_reliabilities
from rbft.evaluation.confusion import confusion_picture
from rbft.evaluation.figures import reliability_figure, strip_figure
from rbft.evaluation.predictions import Prediction, confusion_counts
from rbft.rationales.store import Rationale, spread
from rbft.training.module import VLMFineTuner


def _as_text(text: str) -> str:
    """TensorBoard renders text as Markdown with HTML in it: what the model or a file name says is data.

    Without brackets Markdown has neither links nor pictures, which would be fetched from wherever they point to.
    """
    return html.escape(re.sub(r"([\\`*_\[\]])", r"\\\1", text))


def log_rationales(folder: Path, data: VideoDataModule, rationales: Sequence[Rationale]) -> None:
    """Sample rationales as text, and as figures under the frames they are about."""
    with SummaryWriter(str(folder)) as writer:
        for number, rationale in enumerate(spread(rationales)):
            clip = data.clip(rationale.video)
            title = f"{rationale.video}  [{rationale.label}]"
            writer.add_figure(f"rationales/{number}", strip_figure(clip.frames, title, rationale.text))
            writer.add_text(f"rationales/{number}", f"**{_as_text(title)}**\n\n{_as_text(rationale.text)}")


def log_test(
    trainer: L.Trainer,
    folder: Path,
    predictions: Sequence[Prediction],
    labels: LabelSet,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """A test in TensorBoard: its confusion matrix, confidence against accuracy, and its figures beside its settings.

    Args:
        trainer: trainer of the test, whose loggers get the figures.
        folder: folder of the event files.
        predictions: predictions of the test, calibrated where they are; unreadable videos have no prediction.
        labels: the classes.
        settings: everything that the test depends on, nested.
        metrics: figures of the test.
    """
    counts = confusion_counts(predictions, labels.names)
    reliability = reliability_figure(both_reliabilities(predictions, labels.names), "test")
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("test/reliability", reliability)
        _add_picture(writer, "test/confusion", confusion_picture(counts, labels.names, "test"))
    numbers = {key: value for key, value in metrics.items() if is_number(value)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(_flat(settings), numbers)
        else:
            logger.log_hyperparams(_flat(settings))
            logger.log_metrics(numbers)
        logger.finalize("success")


def _add_picture(writer: SummaryWriter, tag: str, picture: Image.Image, step: int | None = None) -> None:
    writer.add_image(tag, np.asarray(picture), step, dataformats="HWC")


def is_number(value: object) -> bool:
    """Whether a figure is a single number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, for TensorBoard's table of runs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat


class ConfusionLogger(L.Callback):
    """The confusion matrix of each validation."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log it, on the first rank."""
        if not isinstance(pl_module, VLMFineTuner) or not pl_module.predictions:
            return
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            labels = pl_module.book.labels
            counts = confusion_counts(pl_module.predictions, labels.names)
            picture = confusion_picture(counts, labels.names, f"validation, step {trainer.global_step}")
            _add_picture(trainer.logger.experiment, "val/confusion", picture, trainer.global_step)
