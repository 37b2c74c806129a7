"""The stage that scores every test video against the closed set of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import lightning as L

from rbft.answering.choice import Choice, choose, unchosen
from rbft.data.records import VideoRecord
from rbft.evaluation.calibration import Calibration, fit_temperature
from rbft.evaluation.metrics import Metrics, test_metrics
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.files import write_json
from rbft.ranks import first_rank
from rbft.runs.names import ANSWERING, CALIBRATION, METRICS, PREDICTIONS, TENSORBOARD, VALIDATION
from rbft.stages.context import StageContext, StageResult, connect, set_up, start
from rbft.stages.crossfit import cross_fitted
from rbft.stages.robustness import test_again
from rbft.training.logging import is_number, log_test

TESTED = (PREDICTIONS, METRICS, CALIBRATION)
"""Files that every test leaves in its folder."""
UNCALIBRATED = Calibration(absent="this kind of classifier is not calibrated")


def score(context: StageContext) -> StageResult:
    """Score every test video against the closed set of labels."""
    module, data = context.entry.module, context.entry.datamodule
    settings, scoring = module.answering, module.scoring
    trainer = set_up(context, keep_base=settings.strength != 1)
    rows = {"test": scoring.examples(data.splits.test, reasoned=settings.writes)}
    validates = bool(data.splits.val) and (settings.needs_validation or settings.calibrate)
    if validates:
        rows["val"] = scoring.examples(data.splits.val, reasoned=settings.writes)
    connect(context, trainer, **rows)
    with context.loop(trainer):
        choice, scored = _settle(context, trainer)
        if settings.crossfits:
            connect(context, trainer, **rows)
        module.set_strength(choice.strength)
        scoring.gate = choice.gate
        if validates and not scored:
            trainer.validate(module, datamodule=data, verbose=False)
            scored = {choice.strength: module.predictions}
        trainer.test(module, datamodule=data, verbose=False)
        tested = module.predictions
        # of mode gated: how many videos a rationale was written for
        written = {} if choice.gate is None else {"test/share_reasoned": scoring.share_reasoned}
        further = written | test_again(context, trainer, choice)
    names = data.labels.names
    validated, answered = choice.applied(scored.get(choice.strength, ()), names), choice.applied(tested, names)
    calibration = fit_temperature(validated, names, wanted=settings.calibrate)
    metrics = leave_test(context, trainer, answered, calibration, further)
    if settings.writes or settings.strength != 1 or scoring.scorer.prior is not None:
        _report_answering(context, choice, metrics)
    if not validated:
        return StageResult(TESTED, {"test/accuracy": metrics["test/accuracy"]})
    if first_rank():
        write_predictions(context.folder / VALIDATION, calibration.apply(validated))
    return StageResult((*TESTED, VALIDATION), {"test/accuracy": metrics["test/accuracy"]})


def leave_test(
    context: StageContext,
    trainer: L.Trainer,
    answered: Sequence[Prediction],
    calibration: Calibration = UNCALIBRATED,
    further: Mapping[str, float | None] | None = None,
) -> Metrics:
    """Leave the predictions and figures of a test in its folder and in TensorBoard, on the first rank.

    Args:
        context: the stage.
        trainer: trainer of the stage.
        answered: a prediction for each test video that was read; unreadable videos are added as wrong.
        calibration: calibration of their probabilities.
        further: more figures of the test, by their names in metrics.json.

    Returns:
        The figures.
    """
    data = context.entry.datamodule
    predictions = calibration.apply([*answered, *(_wrong(record) for record in data.unreadable)])
    metrics = test_metrics(predictions, data.labels, [record.label for record in data.splits.train])
    metrics |= further or {}
    if first_rank():
        write_predictions(context.folder / PREDICTIONS, predictions)
        write_json(context.folder / METRICS, metrics)
        write_json(context.folder / CALIBRATION, calibration.to_json())
        log_test(trainer, context.folder / TENSORBOARD, predictions, data.labels, context.entry.inputs, metrics)
    return metrics


def _settle(context: StageContext, trainer: L.Trainer) -> tuple[Choice, dict[float, Sequence[Prediction]]]:
    """How test videos are answered, chosen where labelled videos decide, and the predictions of these by strength."""
    module, data = context.entry.module, context.entry.datamodule
    settings = module.answering
    if settings.crossfits:
        tried = settings.tried_strengths(tuned=bool(context.entry.trained_by))
        crossed = cross_fitted(context, trainer, tried)
        choice = choose(settings, crossed, data.labels.names)
        # from here on with the weights of all labelled videos
        start(context, keep_base=settings.strength != 1)
        return choice, dict(crossed)
    tuned = context.entry.stage.weights_from is not None
    strengths = settings.tried_strengths(tuned=tuned)
    if settings.tried(tuned=tuned) == 1:
        return unchosen(settings, strengths[0]), {}
    validated: dict[float, Sequence[Prediction]] = {}
    for strength in strengths:
        module.set_strength(strength)
        trainer.validate(module, datamodule=data, verbose=False)
        validated[strength] = module.predictions
    return choose(settings, validated, data.labels.names), validated


def _report_answering(context: StageContext, choice: Choice, metrics: Metrics) -> None:
    """Print and store how the videos were answered, and what it cost."""
    scoring, videos = context.entry.module.scoring, len(context.entry.datamodule.splits.test)
    cost = {f"{mode}_seconds_per_video": seconds / max(1, videos) for mode, seconds in scoring.seconds.items()}
    cost["tokens_written_per_video"] = scoring.tokens_written / max(1, videos)
    share = metrics.get("test/share_reasoned")
    if isinstance(share, float):
        cost["share_reasoned"] = share
    shown = {key: value for key, value in metrics.items() if key.startswith("test/accuracy_") and is_number(value)}
    if first_rank():
        # the scores of a blank clip, so that videos can be answered later without the test's
        prior = None if scoring.scorer.prior is None else scoring.scorer.prior.tolist()
        write_json(context.folder / ANSWERING, asdict(choice) | cost | shown | {"label_prior": prior})
        how = choice.mode + (f" (rationale {choice.mixture_weight:g})" if choice.mode == "mixture" else "")
        how += f" (gate {choice.gate:.3g}, a rationale for {share:.1%})" if isinstance(share, float) else ""
        on = "all labelled videos out of fold" if context.entry.module.answering.crossfits else "validation"
        why = "" if choice.validation_accuracy is None else f", {choice.validation_accuracy:.1%} right on {on}"
        if choice.validation_accuracy is not None and choice.validation_reasoned is not None:
            why += f" (a rationale for {choice.validation_reasoned:.1%})"
        each = "".join(f", {key.removeprefix('test/accuracy_')} {value:.1%}" for key, value in shown.items())
        context.console.print(f"  answered: {how}, strength {choice.strength:g}{why}{each}")


def _wrong(record: VideoRecord) -> Prediction:
    """The prediction for a test video that cannot be read."""
    return Prediction(record.id, record.video, record.label, None, (), ())
