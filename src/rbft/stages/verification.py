"""What happens to rationales once they are written: a stage's checks are run on them and its policy decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console

from rbft.preparation import Prepared
from rbft.rationales.checks.base import Judge, Material
from rbft.rationales.quality import verify
from rbft.rationales.store import Rationale
from rbft.terminal import steps_shown
from rbft.vlm.batch import PromptInputs
from rbft.vlm.prompt import Prompt


def verify_written(
    entry: Prepared, rationales: Sequence[Rationale], device: torch.device, console: Console
) -> list[Rationale]:
    """Score the rationales of a write stage and decide which are trained on.

    Args:
        entry: The stage, its starting weights named.
        rationales: All that it wrote.
        device: Where the model that wrote them, and now reads them, computes.
        console: Where to show how far it is.

    Raises:
        StageError: A class has lost all of its rationales.
    """
    module, data, processor = entry.module, entry.datamodule, entry.processor
    bound = processor.frame_bound(data.max_pixels, data.max_visual_tokens)

    def ask(video: str, prompt: Prompt) -> PromptInputs:
        return processor.prompt_inputs(prompt, data.clip(video, bound), sized=bound.sized)

    with steps_shown(console) as told:
        judge = None
        if any(check.needs_model for check in module.checks):
            module.configure_model()
            judge = Judge(module.ready.to(device).eval(), processor, ask, data.eval_batch_size, told)
        return verify(module.checks, module.keep, Material(tuple(rationales), entry.book, judge))


def describe_dropped(rationales: Sequence[Rationale]) -> str:
    """Why rationales were dropped, in a clause; empty if none was."""
    reasons = Counter(part.split(" ")[0] for r in rationales if not r.kept for part in r.reason.split(", "))
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
