"""What goes into TensorBoard beside the scalars: rationales under their frames, and confusion matrices."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from rbft.data.datamodule import VideoDataModule
from rbft.data.labels import LabelSet
from rbft.evaluation.calibration import both_reliabilities
from rbft.evaluation.figures import confusion_figure, reliability_figure, strip_figure
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


def log_confusion(folder: Path, predictions: Sequence[Prediction], labels: LabelSet) -> None:
    """The confusion matrix of a test."""
    figure = confusion_figure(confusion_counts(predictions, labels.names), labels.names, "test")
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("test/confusion", figure)


def log_reliability(folder: Path, predictions: Sequence[Prediction], labels: LabelSet) -> None:
    """Confidence against accuracy of a test, before calibration and, where there is one, after."""
    figure = reliability_figure(both_reliabilities(predictions, labels.names), "test")
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("test/reliability", figure)


class ConfusionLogger(L.Callback):
    """The confusion matrix of each validation."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log it, on the first rank."""
        if not isinstance(pl_module, VLMFineTuner) or not pl_module.predictions:
            return
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            labels = pl_module.book.labels
            counts = confusion_counts(pl_module.predictions, labels.names)
            figure = confusion_figure(counts, labels.names, f"validation, step {trainer.global_step}")
            trainer.logger.experiment.add_figure("val/confusion", figure, trainer.global_step)
