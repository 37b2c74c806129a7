"""The stage that scores every test video against the closed set of labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from rbft.data.records import VideoRecord
from rbft.evaluation.answering import Choice, answer, choose
from rbft.evaluation.metrics import Metrics, test_metrics
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.files import write_json
from rbft.ranks import first_rank
from rbft.stages.work import Outcome, Work, connect, make_trainer, start
from rbft.training.logging import log_confusion
from rbft.training.profile import profiled
from rbft.training.sharding import require_direct


def score(work: Work) -> Outcome:
    """Score every test video against the closed set of labels."""
    entry, module, data = work.entry, work.entry.module, work.entry.datamodule
    trainer = make_trainer(work)
    settings, scoring = module.answering, module.scoring
    require_direct(trainer, settings)
    start(work, keep_base=settings.strength != 1)
    rows = {"test": scoring.examples(data.splits.test, reasoned=settings.writes)}
    if settings.needs_validation:
        rows["val"] = scoring.examples(data.splits.val, reasoned=settings.writes)
    connect(work, trainer, **rows)
    with work.stop, profiled(trainer, work.entry.stage.name, work.folder, work.console):
        choice = _settle(work, trainer)
        module.strength = choice.strength
        trainer.test(module, datamodule=data, verbose=False)
    names = data.labels.names
    answered = [answer(p, choice.mode, choice.mixture_weight, names) for p in module.predictions]
    predictions = [*answered, *(_wrong(record) for record in data.unreadable)]
    metrics = test_metrics(predictions, data.labels, [record.label for record in data.splits.train])
    if settings.writes or settings.strength != 1:
        _tell_answering(work, choice, metrics)
    if first_rank():
        write_predictions(work.folder / "predictions.jsonl", predictions)
        write_json(work.folder / "metrics.json", metrics)
        log_confusion(work.folder / "tensorboard", answered, data.labels)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.log_hyperparams(_flat(entry.inputs), {k: v for k, v in metrics.items() if _number(v)})
            trainer.logger.finalize("success")
    return Outcome(("predictions.jsonl", "metrics.json"), {"test/accuracy": metrics["test/accuracy"]})


def _settle(work: Work, trainer: L.Trainer) -> Choice:
    """How test videos are to be answered, by the validation videos where these decide."""
    module, data = work.entry.module, work.entry.datamodule
    settings = module.answering
    strengths = settings.tried_strengths(tuned=work.entry.stage.weights_from is not None)
    if len(strengths) == len(settings.candidates) == 1:
        return Choice(*settings.candidates[0], strengths[0])
    found = {}
    for strength in strengths:
        module.strength = strength
        trainer.validate(module, datamodule=data, verbose=False)
        found[strength] = module.predictions
    return choose(settings, found, data.labels.names)


def _tell_answering(work: Work, choice: Choice, metrics: Metrics) -> None:
    """Say and store how the answers were come by, and what they cost."""
    scoring, videos = work.entry.module.scoring, len(work.entry.datamodule.splits.test)
    cost = {f"{mode}_seconds_per_video": seconds / max(1, videos) for mode, seconds in scoring.seconds.items()}
    cost["tokens_written_per_video"] = scoring.tokens_written / max(1, videos)
    shown = {key: value for key, value in metrics.items() if key.startswith("test/accuracy_") and _number(value)}
    if first_rank():
        write_json(work.folder / "answering.json", asdict(choice) | cost | shown)
        how = choice.mode + (f" (rationale {choice.mixture_weight:g})" if choice.mode == "mixture" else "")
        why = "" if choice.validation_accuracy is None else f", {choice.validation_accuracy:.1%} right on validation"
        each = "".join(f", {key.removeprefix('test/accuracy_')} {value:.1%}" for key, value in shown.items())
        work.console.print(f"  answered: {how}, strength {choice.strength:g}{why}{each}")


def _wrong(record: VideoRecord) -> Prediction:
    """The prediction for a test video that cannot be read."""
    return Prediction(record.id, record.path, record.label, None, (), ())


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, for TensorBoard's table of runs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat
