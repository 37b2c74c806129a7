"""report.html of one run: a single file that opens offline and asks nothing of the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbft.data.datamodule import VideoDataModule
from rbft.evaluation.calibration import both_reliabilities
from rbft.evaluation.confusion import confusion_picture
from rbft.evaluation.figures import as_png, frames_png, reliability_figure
from rbft.evaluation.metrics import accuracy_interval
from rbft.evaluation.predictions import Prediction, confusion_counts, recalls
from rbft.files import write_atomic
from rbft.rationales.audit import Audit
from rbft.rationales.store import Rationale, spread
from rbft.report.audit import audit_view
from rbft.report.templates import render

if TYPE_CHECKING:
    from rbft.experiment import Experiment

_ERRORS_SHOWN = 12


def _picture(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _frames(data: VideoDataModule, video: str) -> str:
    clip = data.clip(video)
    return _picture(frames_png(clip.frames))


def _per_class(predictions: Sequence[Prediction], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "videos": total,
            "recall": right / total if total else None,
            "interval": accuracy_interval(right, total) if total else None,
        }
        for name, (right, total) in recalls(predictions, names).items()
    ]


def _shown_chances(prediction: Prediction) -> tuple[float, ...]:
    """The probabilities that `rbft predict` would print: calibrated where there is a temperature."""
    return prediction.calibrated or prediction.probabilities


def _most_confident_errors(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Wrong predictions, the most confident first: there is most to see where the model is sure and wrong."""
    wrong = [prediction for prediction in predictions if prediction.predicted not in (None, prediction.label)]
    return sorted(wrong, key=lambda prediction: -max(_shown_chances(prediction)))[:_ERRORS_SHOWN]


def write_page(
    path: Path,
    experiment: Experiment,
    data: VideoDataModule,
    metrics: dict[str, Any],
    predictions: Sequence[Prediction],
    rationales: Sequence[Rationale],
    calibration: str = "",
    audit: Audit | None = None,
    cautions: Sequence[str] = (),
    labels_used: str = "",
    passes: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page of a run.

    Args:
        path: HTML file to write.
        experiment: experiment that was run.
        data: data module of that experiment; it reads the frames.
        metrics: figures of the last test, with those of earlier tests of the same run.
        predictions: One per test video.
        rationales: rationales of the write stage; may be empty.
        calibration: a sentence on the calibration of the probabilities; may be empty.
        audit: audit of these rationales; None where there are none.
        cautions: reasons against using the run, a sentence each.
        labels_used: what the run has learned from, a clause; may be empty.
        passes: stages that were spared passes through frozen layers, each with a clause on them.
    """
    names = data.labels.names
    errors = [
        {
            "prediction": prediction,
            "frames": _frames(data, prediction.video),
            "top": sorted(zip(_shown_chances(prediction), names, strict=True), reverse=True)[:3],
        }
        for prediction in _most_confident_errors(predictions)
    ]
    confusion = confusion_picture(confusion_counts(predictions, names), names, "test videos")
    others = {
        key.removesuffix("/accuracy"): value
        for key, value in metrics.items()
        if key.endswith("/accuracy") and not key.startswith("test/") and value is not None
    }
    page = render(
        "run_page.html.j2",
        title=f"{experiment.name} / {experiment.variant} / {experiment.run_dir.name}",
        stages=[stage.name for stage in experiment.stages],
        metrics=metrics,
        cautions=cautions,
        labels_used=labels_used,
        passes=passes,
        others=others,
        confusion=_picture(as_png(confusion)),
        calibration=calibration,
        shown=None if audit is None else audit_view(audit),
        reliability=_picture(as_png(reliability_figure(both_reliabilities(predictions, names), "test videos"))),
        classes=_per_class(predictions, names),
        rationales=[{"rationale": r, "frames": _frames(data, r.video)} for r in spread(rationales)],
        errors=errors,
        calibrated=any(prediction.calibrated for prediction in predictions),
        wrong=sum(prediction.predicted != prediction.label for prediction in predictions),
    )
    write_atomic(path, page)
