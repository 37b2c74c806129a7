"""What of a stage's cost falls on one device: the memory that it holds, and the time that it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rbft.estimate.device import Speed
from rbft.estimate.stage_cost import Memory, Work
from rbft.vlm.cost import ModelSize

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage

_UTILISATION = 0.4
"""Part of its fastest matrix product that a device reaches in a model; published figures lie between 0.3 and 0.5."""


def held(memory: Memory, entry: ReadStage, size: ModelSize, processes: int) -> Memory:
    """What one device holds of it: its shard under fsdp2, 4-bit weights, nothing where another program writes."""
    weights, training = memory.weights, memory.training
    if entry.stage.kind in ("write", "caption_probe") and entry.module.writer.vllm is not None:
        return Memory(0)
    if entry.module.quantize == "4bit":
        # half a byte and the scale of each block of 64
        weights -= int(size.language.linear * (size.element - 0.52))
    if entry.sharded:
        # a frozen vision tower stays whole, which is little beside the rest
        weights, training = weights // processes, training // processes
    return replace(memory, weights=weights, training=training)


def seconds_of(work: Work, speed: Speed) -> float:
    """Seconds that one device takes for all of the work."""
    return work.flops / (speed.flops * _UTILISATION) + work.bytes / speed.bytes + work.launches * speed.launch
