"""The stage that has the model write a rationale of each labelled training video."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape

from rbft.ranks import first_rank
from rbft.rationales.store import RationaleStore
from rbft.stages.verification import describe_dropped, verify_written
from rbft.stages.work import Outcome, Work, author_of, connect, make_trainer, start
from rbft.stages.writing_elsewhere import write_elsewhere
from rbft.training.logging import log_rationales
from rbft.training.profile import profiled
from rbft.vlm.spread import is_spread


def write(work: Work) -> Outcome:
    """Prompt the model for a rationale of each labelled training video."""
    entry, module, data = work.entry, work.entry.module, work.entry.datamodule
    store = RationaleStore(work.folder)
    records, samples = data.splits.train, module.writer.samples
    examples = module.writer.examples(records, entry.book)
    done = store.written()
    left = [row for row in examples if any((row.record.id, sample) not in done for sample in range(samples))]
    start(work)
    trainer = make_trainer(work)
    if left and module.writer.vllm is not None:
        if first_rank():
            write_elsewhere(entry, left, store, author_of(entry), work.folder, work.console)
    elif left:
        connect(work, trainer, predict=left)
        module.write_to(store)
        with work.stop, profiled(trainer, work.entry.stage.name, work.folder, work.console):
            trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier()
    written = store.finish(records, samples) if first_rank() else None
    # a model that is spread over processes reads them on all of them
    if module.vlm is not None and is_spread(module.vlm):
        written = trainer.strategy.broadcast(written)
    if written is None:
        return Outcome(())
    rationales = verify_written(entry, written, trainer.strategy.root_device, work.console)
    if not first_rank():
        return Outcome(())
    store.save(rationales)
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
    if dropped := describe_dropped(rationales):
        work.console.print(f"  dropped: {escape(dropped)}")
    for rationale in rationales[:: max(1, len(rationales) // 3)][:3]:
        work.console.print(f"  {escape(rationale.video)}: {escape(rationale.text)}", soft_wrap=True)
    return Outcome(("rationales.jsonl",), summary)
