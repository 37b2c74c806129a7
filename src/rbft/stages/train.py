"""The stages that fine-tune: on rationales, on labels, or on both."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.callbacks import LearningRateMonitor

from rbft.data.dataset import Example
from rbft.data.splits import Splits
from rbft.errors import StageError
from rbft.objectives.rationale import RationaleObjective
from rbft.ranks import first_rank
from rbft.rationales.soft_labels import SoftLabel, read_soft_labels
from rbft.rationales.store import Rationale, read_rationales
from rbft.runs.names import ADAPTER, CONTRASTS, RATIONALES, SOFT_LABELS
from rbft.stages.context import StageContext, StageResult, connect, set_up
from rbft.stages.kept_passes import describe_passes, pass_figures
from rbft.training.best_weights import KeepBest
from rbft.training.callbacks import SaveCheckpoint
from rbft.training.logging import ConfusionLogger
from rbft.vlm.tuning import save_trained
from rbft.vlm.upper_layers import first_trained, layers_of


def refuse_held_out(rationales: Sequence[Rationale] | Sequence[SoftLabel], splits: Splits) -> None:
    """Refuse rationales or soft labels of validation or test videos.

    Raises:
        StageError: There is one; names the first such video.
    """
    held_out = {name: side for side in ("val", "test") for r in getattr(splits, side) for name in (r.id, r.video)}
    for rationale in rationales:
        what = "rationale" if isinstance(rationale, Rationale) else "soft label"
        if side := held_out.get(rationale.id) or held_out.get(rationale.video):
            raise StageError(
                f"a {what} is of {rationale.video!r}, which is a {side} video of this run; remove it, "
                f"or make every {what} again with --restart."
            )


def _tokens(context: StageContext, rows: Sequence[Example]) -> int:
    """Supervised tokens of rows, in one epoch."""
    target_ids = context.entry.module.processor.target_ids
    return sum(len(target_ids(row.prompt, row.answer)) for row in rows if row.answer is not None)


def matched_epochs(context: StageContext, rows: Sequence[Example], rationales: Sequence[Rationale]) -> dict[str, Any]:
    """Trainer settings of epochs; those of direct SFT that sees as many supervised tokens as RB-FT, if it is to.

    Args:
        context: the stage.
        rows: its own training rows.
        rationales: rationales that RB-FT would train on.

    Returns:
        Its own epochs and those that make up for `rationale_epochs` over the rationales, to the nearest whole epoch.
    """
    entry = context.entry
    if not entry.stage.rationale_epochs:
        # Lightning would train for a thousand
        return {"max_epochs": entry.epochs}
    rationale_rows = RationaleObjective().examples(entry.datamodule.splits.train, entry.book, rationales)
    more = entry.stage.rationale_epochs * _tokens(context, rationale_rows) / _tokens(context, rows)
    own_epochs = entry.epochs
    context.console.print(
        f"  {round(more)} epochs for the tokens of {entry.stage.rationale_epochs} epochs over "
        f"{len(rationale_rows)} rationales, and {own_epochs} of its own"
    )
    return {"max_epochs": max(1, own_epochs + round(more))}


def train(context: StageContext) -> StageResult:
    """Fine-tune on what the stage's objective asks for."""
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    source = entry.stage.rationales_from
    rationales = [] if source is None else read_rationales(context.run_dir / source / RATIONALES)
    if module.control is not None and rationales:
        rationales = module.control.apply([r for r in rationales if r.kept], module.seed, data.splits.train)
        context.console.print(f"  trained on a control: {type(module.control).__name__}")
    assert module.objective is not None
    if source is not None and module.objective.contrasts:
        rationales = [*rationales, *read_rationales(context.run_dir / source / CONTRASTS)]
    refuse_held_out(rationales, data.splits)
    if entry.stage.answers_from is not None:
        module.objective.answers = read_soft_labels(context.run_dir / entry.stage.answers_from / SOFT_LABELS)
        refuse_held_out(module.objective.answers, data.splits)
    rows = module.objective.examples(data.splits.train, entry.book, rationales)
    manifest = context.stop.path
    best = KeepBest(manifest.parent / "best", module.selection.patience, write=first_rank())
    choosing = [best] if module.selection.weights == "best" else []
    # in this order: the checkpoint that is saved after an epoch holds what was best up to then
    extra = [
        *choosing,
        SaveCheckpoint(manifest, entry.config["save_every"], entry.config["save_seconds"], *choosing),
        LearningRateMonitor("step"),
        ConfusionLogger(),
    ]
    # a loader of nothing has Lightning warn of it
    validation: dict[str, Any] = {} if data.splits.val else {"limit_val_batches": 0}
    trainer = set_up(context, extra, **matched_epochs(context, rows, rationales), **validation)
    if reasoned := module.chooses_after_rationales:
        module.validate_after_rationales()
        context.console.print("  the best epoch is the one that is right most often after its own rationales")
    connect(context, trainer, train=rows, val=module.scoring.examples(data.splits.val, reasoned=reasoned))
    entry.require_interval(data.batches_per_epoch(trainer.world_size, entry.config["trainer"]["limit_train_batches"]))
    with context.loop(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=str(manifest) if manifest.is_file() else None, weights_only=True)
    loss = trainer.callback_metrics.get("train/loss")
    summary = {
        "rows": len(rows),
        "steps": trainer.global_step,
        # of an epoch: tokens of answers that enter the loss
        "supervised_tokens": sum(data.dataset("train").lengths),
        "train/loss": None if loss is None else float(loss),
    }
    summary |= {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    first, layers = first_trained(module.ready.model), len(layers_of(module.ready.base))
    summary |= pass_figures(module.kept_visits, first, layers, trainer.world_size)
    # a training that ends within its first epoch, or before the first one that is validated, has nothing to choose from
    chosen = best.best is not None
    if chosen:
        summary |= {"best_epoch": best.epoch + 1, "validations": best.validations}
    else:
        save_trained(module.ready.model, context.folder / ADAPTER, write=first_rank())
    if first_rank():
        if choosing and not chosen:
            context.console.print("  it ended before an epoch was validated: its last weights are kept")
        if chosen:
            shutil.copytree(best.folder, context.folder / ADAPTER, dirs_exist_ok=True)
        # the checkpoint is useless once the stage is done, and with full fine-tuning it is the largest file
        shutil.rmtree(manifest.parent, ignore_errors=True)
        figures = "".join(f", {key} {value:.3f}" for key, value in summary.items() if isinstance(value, float))
        context.console.print(f"  {summary['rows']} rows, {summary['steps']} steps{figures}")
        if spared := describe_passes(summary):
            context.console.print(f"  {spared}")
    return StageResult((ADAPTER,), summary)
