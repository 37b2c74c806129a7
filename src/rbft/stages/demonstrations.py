"""The stage that tests the model with labelled videos' descriptions and classes in its question; it trains nothing."""

from __future__ import annotations

from dataclasses import replace

from rbft.data.demonstrations import DemonstratedBook
from rbft.errors import ConfigError
from rbft.rationales.store import read_rationales
from rbft.runs.names import RATIONALES
from rbft.stages.context import StageContext, StageResult
from rbft.stages.score import score
from rbft.stages.train import refuse_held_out
from rbft.vlm.loading import load_config


def demonstrations(context: StageContext) -> StageResult:
    """Put one kept description of each training video into the question, and test as any test does.

    Raises:
        ConfigError: The question alone is longer than the model reads; says how many demonstrations it holds.
        StageError: A description is of a validation or test video.
    """
    entry, module, data = context.entry, context.entry.module, context.entry.datamodule
    assert entry.stage.rationales_from is not None
    written = read_rationales(context.run_dir / entry.stage.rationales_from / RATIONALES)
    refuse_held_out(written, data.splits)
    first = {r.id: (r.text, r.label) for r in reversed(written) if r.kept and r.labelled}
    texts = [first[record.id] for record in data.splits.train if record.id in first]
    book = DemonstratedBook(entry.book, texts, module.demonstrations)
    question = replace(book.label_prompt(), video=False)
    tokens = len(entry.module.processor.prompt_inputs(question, None).ids)
    longest = getattr(load_config(module.name, module.revision).get_text_config(), "max_position_embeddings", None)
    if longest is not None and tokens > longest:
        raise ConfigError(
            f"the stage {entry.stage.name!r}: {len(book.told)} demonstrations make a question of {tokens} tokens, and "
            f"{module.name} reads {longest}. Set model.demonstrations.per_class to fewer videos of each class, or "
            "write shorter descriptions (model.writer.max_new_tokens)."
        )
    context.console.print(f"  {len(book.told)} demonstrations, a question of {tokens} tokens")
    module.connect(entry.module.processor, book, module.seed)
    result = score(context)
    return replace(result, summary=result.summary | {"demonstrations": len(book.told), "question_tokens": tokens})
