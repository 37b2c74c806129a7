"""The stage that has the model write rationales of the training videos, again where the first ones are not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.markup import escape

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.ranks import can_agree, first_rank, grouped, wait_for_all
from rbft.rationales.checks.base import Judge, Material
from rbft.rationales.quality import RESCUED, score
from rbft.rationales.store import Rationale, RationaleStore
from rbft.rationales.writer import Attempt
from rbft.runs.names import CONTRASTS, RATIONALES, TENSORBOARD
from rbft.stages.cautions import rationale_cautions
from rbft.stages.context import StageContext, StageResult, connect, set_up
from rbft.stages.read_stage import ReadStage
from rbft.stages.vllm_stage import write_elsewhere
from rbft.terminal import steps_shown
from rbft.training.logging import log_rationales
from rbft.vlm.batch import PromptInputs
from rbft.vlm.prompt import Prompt
from rbft.vlm.sharded import is_sharded


def write(context: StageContext) -> StageResult:
    """Prompt the model for rationales of each training video, attempt by attempt, and decide which are trained on."""
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    store = RationaleStore(context.folder)
    trainer = set_up(context)
    labelled = {record.id: record for record in data.splits.train}
    everyone = [*data.splits.train, *data.unlabelled_videos]
    # only the first process judges; where all must read together, they all hold the same
    judged: list[Rationale] = []
    attempts = module.writer.attempts(entry.book.prompts.hint)
    if len(attempts) > 1:
        _come_together(context, trainer, store, everyone, attempts[0])
    for attempt in attempts:
        records = everyone if attempt.number == 0 else _pending(store, attempt, everyone, judged)
        records = [record for record in records if attempt.unlabelled or record.id in labelled]
        if not records:
            continue
        if attempt.number:
            context.console.print(f"  attempt {attempt.number + 1}: {len(records)} videos have no rationale yet")
        write_what_is_left(context, trainer, store, attempt, records)
        written = store.collect(records, module.writer.numbers(attempt)) if first_rank() else []
        # a sharded model reads them on all processes
        together = module.vlm is not None and is_sharded(module.vlm)
        if together:
            written = trainer.strategy.broadcast(written)
        if first_rank() or together:
            device = trainer.strategy.root_device
            judged = _judge_written(entry, [*judged, *written], device, context.console, standing=len(judged))
    if (contrast := module.writer.contrasting(entry.book.prompts.hint)) is not None:
        context.console.print(f"  {len(labelled)} videos again, each hinted to another class")
        write_what_is_left(context, trainer, store, contrast, data.splits.train)
    if not first_rank():
        return StageResult(())
    place = {record.id: number for number, record in enumerate(everyone)}
    judged.sort(key=lambda rationale: (place[rationale.id], rationale.sample))
    # each with its reason, for whoever wants to know why a class has none
    store.save(judged)
    doubts = [doubt for check in module.checks for doubt in check.doubts]
    for doubt in doubts:
        context.console.print(f"  [yellow]{escape(doubt)}[/]", soft_wrap=True)
    rationales = module.keep.settle(judged, entry.book)
    store.save(rationales)
    log_rationales(context.folder / TENSORBOARD, data, rationales)
    summary = _report(context, rationales) | ({"doubts": doubts} if doubts else {})
    if contrast is None:
        return StageResult((RATIONALES,), summary)
    against = store.collect(data.splits.train, module.writer.numbers(contrast))
    store.save_contrasts(against)
    return StageResult((RATIONALES, CONTRASTS), summary | _report_contrasts(context.console, rationales, against))


def _come_together(
    context: StageContext, trainer: L.Trainer, store: RationaleStore, everyone: Sequence[VideoRecord], first: Attempt
) -> None:
    """Wait until all processes of the run are there, before the first of them decides what the others write.

    Writing does so, too; but what an interrupted run has written is not written again.
    """
    module, data = context.entry.module, context.entry.datamodule
    if module.writer.vllm is not None:
        # one process writes; others that a launcher has started wait for it
        if not can_agree():
            trainer.strategy.setup_environment()
        return
    examples = module.writer.examples(everyone, context.entry.book, first)
    if trainer.world_size > 1 and not grouped() and not _left(context, store, first, examples):
        connect(context, trainer, predict=examples)
        trainer.limit_predict_batches = 0
        trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.limit_predict_batches = 1.0


def _left(context: StageContext, store: RationaleStore, attempt: Attempt, examples: Sequence[Example]) -> list[Example]:
    """What an attempt has not written yet."""
    done, numbers = store.written(), context.entry.module.writer.numbers(attempt)
    return [row for row in examples if any((row.record.id, number) not in done for number in numbers)]


def _pending(
    store: RationaleStore, attempt: Attempt, everyone: Sequence[VideoRecord], judged: Sequence[Rationale]
) -> list[VideoRecord]:
    """The videos without a kept rationale, the same on every process: the first one decides."""
    if first_rank():
        kept = {rationale.id for rationale in judged if rationale.kept}
        store.ask_again(attempt.number, {record.id for record in everyone} - kept)
    wait_for_all()
    asked = store.asked_again(attempt.number)
    return [record for record in everyone if record.id in asked]


def write_what_is_left(
    context: StageContext, trainer: L.Trainer, store: RationaleStore, attempt: Attempt, records: Sequence[VideoRecord]
) -> None:
    """Have an attempt written, but for what an interrupted run has written already.

    Args:
        context: the stage.
        trainer: trainer of the stage.
        store: where it is kept.
        attempt: round of writing.
        records: videos to write about.
    """
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    left = _left(context, store, attempt, module.writer.examples(records, entry.book, attempt))
    if not left:
        return
    if module.writer.vllm is not None:
        # a model that was loaded here must not take memory from vLLM
        module.unload()
        if first_rank():
            write_elsewhere(entry, left, attempt, store, entry.author, context.folder, context.console)
        wait_for_all()
        return
    connect(context, trainer, predict=left)
    module.write_to(store, attempt)
    with context.loop(trainer):
        trainer.predict(module, datamodule=data, return_predictions=False)
    trainer.strategy.barrier()


def _judge_written(
    entry: ReadStage, rationales: Sequence[Rationale], device: torch.device, console: Console, standing: int = 0
) -> list[Rationale]:
    """Score the rationales of a write stage and judge each; a class may have lost all of its.

    Args:
        entry: the stage, with its starting weights set.
        rationales: all rationales that it wrote.
        device: device of the model that wrote them and now reads them.
        console: console to show progress on.
        standing: number of them, from the first on, that keep the scores they have.
    """
    module, data, processor = entry.module, entry.datamodule, entry.module.processor

    def ask(video: str, prompt: Prompt) -> PromptInputs:
        return processor.prompt_inputs(prompt, data.clip(video), sized=data.spec.sized)

    with steps_shown(console) as report:
        judge = None
        if any(check.needs_model for check in module.checks) and len(rationales) > standing:
            judge = Judge(module.load_on(device).eval(), processor, ask, data.eval_batch_size, report)
        scored = score(module.checks, Material(tuple(rationales), entry.book, judge), standing)
        return module.keep.judge(scored, module.checks, entry.book)


def _report(context: StageContext, rationales: Sequence[Rationale]) -> dict[str, Any]:
    """Print what was written; gives the figures of the stage."""
    stated = [r for r in rationales if r.labelled and r.stated is not None]
    kept = [r for r in rationales if r.kept]
    covered = {r.id for r in kept}
    checks = dict.fromkeys(name for r in rationales for name in r.scores)
    summary: dict[str, Any] = {
        "videos": len({r.id for r in rationales}),
        "videos_without": len({r.id for r in rationales} - covered),
        "rationales": len(rationales),
        "labelled_rationales": sum(r.labelled for r in rationales),
        "kept": len(kept),
        "state_a_class": len(stated),
        "state_the_right_class": sum(r.stated == r.label for r in stated),
        "truncated": sum(r.truncated for r in rationales),
        "scores": {name: round(fmean(r.scores[name] for r in rationales if name in r.scores), 4) for name in checks},
    }
    if clips := {r.id for r in rationales if not r.labelled}:
        summary |= {"unlabelled": len(clips), "unlabelled_kept": len(clips & covered)}
    say = context.console.print
    say(
        f"  {summary['rationales']} rationales, {summary['kept']} kept; {summary['state_the_right_class']} of "
        f"{summary['state_a_class']} that name a class name the right one; {summary['truncated']} cut at the limit"
    )
    if dropped := _describe_dropped(rationales):
        say(f"  dropped: {escape(dropped)}")
    if rescued := _describe_rescued(rationales):
        say(f"  classes that lost all and keep the best of each video: {escape(rescued)}")
    if summary["videos_without"]:
        say(f"  {summary['videos_without']} of {summary['videos']} videos have no rationale that is kept")
    for caution in rationale_cautions(summary):
        say(f"  [bold]warning:[/] {escape(caution)}")
    if clips:
        say(f"  unlabelled clips used: {summary['unlabelled_kept']} of {len(clips)}, under the class their text states")
    for rationale in rationales[:: max(1, len(rationales) // 3)][:3]:
        say(f"  {escape(rationale.video)}: {escape(rationale.text)}", soft_wrap=True)
    return summary


def _report_contrasts(
    console: Console, rationales: Sequence[Rationale], against: Sequence[Rationale]
) -> dict[str, int]:
    """Print what the hint of another class changed; gives the figures."""
    own = {(text.id, text.text) for text in rationales}
    led = sum(text.stated == text.hinted_to for text in against)
    differ = sum((text.id, text.text) not in own for text in against)
    console.print(
        f"  {led} of {len(against)} texts that were hinted to another class conclude with it; {differ} say something "
        "else before it than those hinted to the right one"
    )
    return {"contrasts": len(against), "contrasts_led": led, "contrasts_differ": differ}


def _describe_dropped(rationales: Sequence[Rationale]) -> str:
    """Why rationales were dropped, in a clause; empty if none was."""
    reasons = Counter(part.split(" ")[0] for r in rationales if not r.kept for part in r.reason.split(", "))
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def _describe_rescued(rationales: Sequence[Rationale]) -> str:
    """Which classes kept rationales that were dropped, in a clause; empty if none did."""
    rescued = Counter(r.label for r in rationales if r.kept and r.reason.startswith(RESCUED))
    return ", ".join(f"{label} {count}" for label, count in rescued.items())
