"""What each kind of stage does with a trainer, and what it leaves in its folder."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.markup import escape

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.evaluation.metrics import test_metrics
from rbft.evaluation.predictions import Prediction, read_predictions, write_predictions
from rbft.files import read_json, write_json
from rbft.lineage import read_record
from rbft.ranks import first_rank
from rbft.rationales.store import RationaleStore, read_rationales
from rbft.report.page import write_page
from rbft.training.callbacks import GracefulStop, PlainProgress, SavePlace
from rbft.training.checkpoint import AtomicCheckpointIO
from rbft.training.logging import ConfusionLogger, log_confusion, log_rationales
from rbft.vlm.tuning import save_trained

if TYPE_CHECKING:
    from rbft.experiment import Experiment
    from rbft.preparation import Prepared


@dataclass(frozen=True)
class Work:
    """A stage about to run.

    Args:
        entry: The stage with its module and data.
        folder: Its folder.
        run_dir: The run's folder.
        console: Where to speak.
        stop: Ends it where it can be continued.
    """

    entry: Prepared
    folder: Path
    run_dir: Path
    console: Console
    stop: GracefulStop


@dataclass(frozen=True)
class Outcome:
    """What a stage left.

    Args:
        outputs: Files and folders that later stages or people rely on, relative to the stage's folder.
        summary: A few figures.
    """

    outputs: tuple[str, ...]
    summary: dict[str, Any] = field(default_factory=dict)


def _trainer(work: Work, extra: Sequence[L.Callback] = ()) -> L.Trainer:
    progress: L.Callback = (
        RichProgressBar(leave=True) if work.console.is_terminal else PlainProgress(work.entry.stage.name)
    )
    return work.entry.cli.make_trainer(
        callbacks=[progress, work.stop, *extra],
        logger=TensorBoardLogger(save_dir=work.folder, name="", version="tensorboard", default_hp_metric=False),
        default_root_dir=str(work.folder),
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def _start(work: Work) -> None:
    """Say which weights the stage starts from."""
    entry, source = work.entry, work.entry.stage.weights_from
    folder = None if source is None else work.run_dir / source / "adapter"
    revision = f"@{entry.module.revision}" if entry.module.revision else ""
    author = entry.module.name + revision + ("" if source is None else f"+{source}:{entry.inputs['weights']}")
    entry.module.start_from(folder, author)


def _connect(work: Work, trainer: L.Trainer | None, **rows: Sequence[Example]) -> None:
    entry = work.entry
    accumulate = 1 if trainer is None else trainer.accumulate_grad_batches
    entry.datamodule.connect(entry.processor, int(entry.config["seed_everything"]), accumulate, **rows)


def write(work: Work) -> Outcome:
    """Prompt the model for a rationale of each labelled training video."""
    entry, module, data = work.entry, work.entry.module, work.entry.datamodule
    store = RationaleStore(work.folder)
    records, samples = data.splits.train, module.writer.samples
    examples = module.writer.examples(records, entry.book)
    done = store.written()
    left = [row for row in examples if any((row.record.id, sample) not in done for sample in range(samples))]
    _start(work)
    if left:
        trainer = _trainer(work)
        _connect(work, trainer, predict=left)
        module.write_to(store)
        with work.stop:
            trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier()
    if not first_rank():
        return Outcome(())
    rationales = store.finish(records, samples)
    stated = [r for r in rationales if r.stated is not None]
    kept = Counter(r.label for r in rationales if r.kept)
    summary = {
        "rationales": len(rationales),
        "kept": sum(kept.values()),
        "state_a_class": len(stated),
        "state_the_right_class": sum(r.stated == r.label for r in stated),
        "truncated": sum(r.truncated for r in rationales),
    }
    log_rationales(work.folder / "tensorboard", data, rationales)
    work.console.print(
        f"  {summary['rationales']} rationales, {summary['kept']} kept; {summary['state_the_right_class']} of "
        f"{summary['state_a_class']} that name a class name the right one; {summary['truncated']} cut at the limit"
    )
    for rationale in rationales[:: max(1, len(rationales) // 3)][:3]:
        work.console.print(f"  {escape(rationale.video)}: {escape(rationale.text)}", soft_wrap=True)
    return Outcome(("rationales.jsonl",), summary)


def train(work: Work) -> Outcome:
    """Fine-tune on what the stage's objective asks for."""
    entry, module, data = work.entry, work.entry.module, work.entry.datamodule
    source = entry.stage.rationales_from
    rationales = [] if source is None else read_rationales(work.run_dir / source / "rationales.jsonl")
    assert module.objective is not None
    rows = module.objective.examples(data.splits.train, entry.book, rationales)
    prompt = entry.book.label_prompt()
    place = work.stop.path
    trainer = _trainer(
        work,
        [SavePlace(place, entry.config["save_every"]), LearningRateMonitor("step"), ConfusionLogger()],
    )
    _start(work)
    _connect(work, trainer, train=rows, val=[Example(record, prompt) for record in data.splits.val])
    with work.stop:
        trainer.fit(module, datamodule=data, ckpt_path=str(place) if place.is_file() else None, weights_only=True)
    loss = trainer.callback_metrics.get("train/loss")
    summary = {
        "rows": len(rows),
        "steps": trainer.global_step,
        "train/loss": None if loss is None else float(loss),
    }
    summary |= {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    if first_rank():
        save_trained(module.ready.model, work.folder / "adapter")
        # the place in the run is of no use once the stage is done, and with full fine-tuning it is the largest file
        shutil.rmtree(place.parent, ignore_errors=True)
        figures = "".join(f", {key} {value:.3f}" for key, value in summary.items() if isinstance(value, float))
        work.console.print(f"  {summary['rows']} rows, {summary['steps']} steps{figures}")
    return Outcome(("adapter",), summary)


def test(work: Work) -> Outcome:
    """Score every test video against the closed set of labels."""
    entry, module, data = work.entry, work.entry.module, work.entry.datamodule
    trainer = _trainer(work)
    _start(work)
    prompt = entry.book.label_prompt()
    _connect(work, trainer, test=[Example(record, prompt) for record in data.splits.test])
    with work.stop:
        trainer.test(module, datamodule=data, verbose=False)
    predictions = [*module.predictions, *(_wrong(record) for record in data.unreadable)]
    metrics = test_metrics(predictions, data.labels, [record.label for record in data.splits.train])
    if first_rank():
        write_predictions(work.folder / "predictions.jsonl", predictions)
        write_json(work.folder / "metrics.json", metrics)
        log_confusion(work.folder / "tensorboard", module.predictions, data.labels)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.log_hyperparams(_flat(entry.inputs), {k: v for k, v in metrics.items() if _number(v)})
            trainer.logger.finalize("success")
    return Outcome(("predictions.jsonl", "metrics.json"), {"test/accuracy": metrics["test/accuracy"]})


def _wrong(record: VideoRecord) -> Prediction:
    """The prediction for a test video that cannot be read."""
    return Prediction(record.id, record.path, record.label, None, (), ())


PUBLISHED = ("metrics.json", "predictions.jsonl", "report.html")
"""What a run leaves at the top of its folder when its last test is done."""

RUNS: dict[str, Callable[[Work], Outcome]] = {
    "write": write,
    "rationale": train,
    "classification": train,
    "joint": train,
    "test": test,
}


def conclude(experiment: Experiment, prepared: Sequence[Prepared], console: Console, *, publish: bool) -> None:
    """Publish the last test's figures as the run's, write its page, and say the headline.

    Args:
        experiment: What was run.
        prepared: Its stages.
        console: Where to speak.
        publish: Whether to write anything; what stands there already stays as it is otherwise.
    """
    tests = [entry for entry in prepared if entry.stage.kind == "test"]
    if not tests or not _is_current(experiment, tests[-1]):
        return
    last, run_dir = tests[-1], experiment.run_dir
    metrics = read_json(run_dir / last.stage.name / "metrics.json")
    for entry in tests[:-1]:
        if _is_current(experiment, entry):
            earlier = read_json(run_dir / entry.stage.name / "metrics.json")
            metrics |= {f"{entry.stage.name}/{key.removeprefix('test/')}": value
                        for key, value in earlier.items() if key.startswith("test/accuracy")}  # fmt: skip
    if publish:
        write_json(run_dir / "metrics.json", metrics)
        predictions = read_predictions(run_dir / last.stage.name / "predictions.jsonl")
        write_predictions(run_dir / "predictions.jsonl", predictions)
        writer = next((entry for entry in prepared if entry.stage.kind == "write"), None)
        written = run_dir / (writer.stage.name if writer is not None else "") / "rationales.jsonl"
        rationales = read_rationales(written) if written.is_file() else []
        write_page(run_dir / "report.html", experiment, last.datamodule, metrics, predictions, rationales)
    low, high = metrics["test/accuracy_ci95"]
    console.print(
        f"\n[bold]accuracy {metrics['test/accuracy']:.1%}[/] (95% interval {low:.1%} to {high:.1%}, "
        f"{metrics['test/num_videos']} test videos), balanced {metrics['test/balanced_accuracy']:.1%}, "
        f"macro-F1 {_percent(metrics['test/macro_f1'])}"
    )
    floors = [f"chance {metrics['chance/accuracy']:.1%}", f"majority {metrics['majority/accuracy']:.1%}"]
    floors += [f"{key.removesuffix('/accuracy').replace('_', '-')} {value:.1%}" for key, value in metrics.items()
               if key.endswith("/accuracy") and key.split("/")[0] not in ("test", "chance", "majority")]  # fmt: skip
    console.print(f"beside it: {', '.join(floors)}")
    console.print(f"run: {escape(str(run_dir))}  (report.html; tensorboard --logdir {escape(str(run_dir))})")


def _is_current(experiment: Experiment, entry: Prepared) -> bool:
    """Whether a stage's output is there and of these settings; one of other settings is not this run's."""
    record = read_record(experiment.run_dir / entry.stage.name)
    return record is not None and record.fingerprint == entry.fingerprint


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"


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
