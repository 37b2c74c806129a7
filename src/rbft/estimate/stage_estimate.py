"""The estimate of one stage, and its optimiser steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rbft.estimate.clip_costs import Range, StageParts
from rbft.estimate.stage_cost import Memory


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will cost.

    Args:
        name: name of the stage.
        kind: kind of the stage.
        rows: number of clips, each with all questions and answers about it; of an epoch where it trains.
        steps: optimiser steps; batches where it does not train.
        tokens: tokens of a row with its answer; rationales that are not written yet count with the most they may have.
        memory: memory on each device.
        seconds: order of magnitude, without decoding videos and loading the model; None where no speed is known.
        states: bytes of what is kept of frozen layers for its rows.
    """

    name: str
    kind: str
    rows: int
    steps: int
    tokens: Range
    memory: Memory
    seconds: float | None
    states: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"memory": asdict(self.memory) | {"total": self.memory.total}}


def steps_of(rows: int, per_step: int, trainer: dict[str, Any]) -> int:
    """Optimiser steps of a training stage."""
    epochs = 1 if trainer["max_epochs"] is None else int(trainer["max_epochs"])
    steps = -(-rows // per_step) * epochs
    return min(steps, trainer["max_steps"]) if trainer["max_steps"] > 0 else steps


def matched_epochs(parts: StageParts, writer: StageParts | None, labels: Sequence[int]) -> float:
    """Epochs that make up for the tokens of rationales, at most.

    Args:
        parts: the stage.
        writer: the stage that writes the rationales.
        labels: tokens of each class.
    """
    if not parts.stage.rationale_epochs or writer is None:
        return 0.0
    settings = writer.module.writer
    most = settings.samples * (settings.max_new_tokens + max(labels))
    return parts.stage.rationale_epochs * most * len(labels) / sum(labels)
