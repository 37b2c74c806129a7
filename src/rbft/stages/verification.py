"""What happens to rationales once they are written: a stage's checks are run on them and its policy decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console

from rbft.rationales.checks.base import Judge, Material
from rbft.rationales.quality import RESCUED, score
from rbft.rationales.store import Rationale
from rbft.stages.context import Prepared
from rbft.terminal import steps_shown
from rbft.vlm.batch import PromptInputs
from rbft.vlm.prompt import Prompt


def judge_written(
    entry: Prepared, rationales: Sequence[Rationale], device: torch.device, console: Console, standing: int = 0
) -> list[Rationale]:
    """Score the rationales of a write stage and judge each; a class may have lost all of its.

    Args:
        entry: the stage, with its starting weights set.
        rationales: all rationales that it wrote.
        device: device of the model that wrote them and now reads them.
        console: console to show progress on.
        standing: number of them, from the first on, that keep the scores they have.
    """
    module, data, processor = entry.module, entry.datamodule, entry.processor

    def ask(video: str, prompt: Prompt) -> PromptInputs:
        return processor.prompt_inputs(prompt, data.clip(video), sized=data.spec.sized)

    with steps_shown(console) as report:
        judge = None
        if any(check.needs_model for check in module.checks) and len(rationales) > standing:
            judge = Judge(module.load_on(device).eval(), processor, ask, data.eval_batch_size, report)
        scored = score(module.checks, Material(tuple(rationales), entry.book, judge), standing)
        return module.keep.judge(scored, module.checks, entry.book)


def describe_dropped(rationales: Sequence[Rationale]) -> str:
    """Why rationales were dropped, in a clause; empty if none was."""
    reasons = Counter(part.split(" ")[0] for r in rationales if not r.kept for part in r.reason.split(", "))
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def describe_rescued(rationales: Sequence[Rationale]) -> str:
    """Which classes kept rationales that were dropped, in a clause; empty if none did."""
    rescued = Counter(r.label for r in rationales if r.kept and r.reason.startswith(RESCUED))
    return ", ".join(f"{label} {count}" for label, count in rescued.items())
