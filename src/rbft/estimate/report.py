"""How an estimate is shown: a table for people, plain values for programs, findings where memory does not suffice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.data.findings import Finding
from rbft.errors import ModelError
from rbft.estimate.clip_costs import Clips, Range
from rbft.estimate.device import Device
from rbft.estimate.stage_cost import StageEstimate

_UNITS = (("s", 1), ("min", 60), ("h", 3600), ("days", 86400))


def about_bytes(count: float) -> str:
    """Two digits are as much as is known: "1.2 GB", "85 MB"."""
    unit, size = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6)
    value = count / size
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{round(value, digits) if digits else round(value):g} {unit}"


def about_seconds(seconds: float | None) -> str:
    """One digit is as much as is known: "about 20 min"."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "about 1 s"
    unit, size = next((unit, size) for unit, size in reversed(_UNITS) if seconds >= 1.5 * size or size == 1)
    value = seconds / size
    digit = 10 ** math.floor(math.log10(value))
    return f"about {round(value / digit) * digit:g} {unit}"


def print_clips(clips: Clips, console: Console) -> None:
    """Print frames, sizes and tokens of the clips as the model gets them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("clips")
    for title in ("min", "median", "max"):
        table.add_column(title, justify="right")
    for name, values in clips.ranges.items():
        table.add_row(name, *(f"{value:g}" for value in values))
    console.print(table)
    console.print(f"most visual tokens: {clips.most_tokens}, of {escape(clips.most_video)}")


def print_estimates(estimates: Sequence[StageEstimate], device: Device, console: Console) -> None:
    """A row for each stage."""
    many = f" x {device.processes}" if device.processes > 1 else ""
    table = Table(box=None, pad_edge=False)
    table.add_column(f"estimate for {escape(device.name)}{many}")
    for title in ("rows", "steps", "tokens a row", "memory", "time"):
        table.add_column(title, justify="right")
    for stage in estimates:
        table.add_row(
            escape(stage.name),
            str(stage.rows),
            str(stage.steps),
            _tokens(stage.tokens),
            about_bytes(stage.memory.total),
            about_seconds(stage.seconds),
        )
    console.print(table)
    console.print("memory is that of one device; times are rough, without decoding and loading")


def _tokens(tokens: Range) -> str:
    low, middle, high = tokens
    return f"{middle:g}" if low == high else f"{middle:g} ({low:g} to {high:g})"


def summary(estimates: Sequence[StageEstimate]) -> str:
    """The estimates in one line."""
    largest = max(estimates, key=lambda stage: stage.memory.total)
    times = [stage.seconds for stage in estimates if stage.seconds is not None]
    time = f", {about_seconds(sum(times))} in all without decoding" if times else ""
    kept = max(stage.states for stage in estimates)
    states = f", {about_bytes(kept)} of kept states" if kept else ""
    return f"estimate: {about_bytes(largest.memory.total)} of memory at most (in {largest.name}){states}{time}"


def memory_findings(estimates: Sequence[StageEstimate], device: Device) -> list[Finding]:
    """The stages that need more memory than the device has."""
    if device.memory is None:
        return []
    findings = []
    for stage in estimates:
        if stage.memory.total > device.memory:
            batch = "data.batch_size" if stage.kind not in ("write", "answer", "test") else "data.eval_batch_size"
            advice = (
                _LESS
                if stage.memory.certain > device.memory
                else (
                    f"Lower {batch} (trainer.accumulate_grad_batches makes up for it), data.max_pixels, "
                    "data.max_visual_tokens or data.num_frames, or set model.activation_checkpointing."
                    if batch == "data.batch_size"
                    else f"Lower {batch}, data.max_pixels, data.max_visual_tokens or data.num_frames."
                )
            )
            findings.append(Finding("memory", f"the stage {stage.name!r} {_needs(stage, device)}. {advice}", ()))
    return findings


_LESS = (
    "Take a smaller model, set model.dtype to bfloat16, train less of it (model.tuning: LoRA), keep it in 4 bits "
    "(model.quantize) or shard it over several devices (trainer.strategy: fsdp2)."
)


def _needs(stage: StageEstimate, device: Device) -> str:
    memory = stage.memory
    assert device.memory is not None
    parts = {
        "weights": memory.weights,
        "gradients and optimiser": memory.training,
        "activations": memory.activations,
        "cached keys and values": memory.cache,
    }
    shares = ", ".join(f"{name} {about_bytes(size)}" for name, size in parts.items() if size)
    return (
        f"needs about {about_bytes(memory.total)} on each device ({shares}), and {device.name} has "
        f"{about_bytes(device.memory)}"
    )


def refuse_certain(estimates: Sequence[StageEstimate], device: Device) -> None:
    """Refuse a run that cannot work whatever the batch.

    Raises:
        ModelError: Weights, gradients and the optimiser's moments alone are more than the device has room for.
    """
    for stage in estimates:
        if device.memory is not None and stage.memory.certain > device.memory:
            raise ModelError(f"the stage {stage.name!r} {_needs(stage, device)}. {_LESS}")


def to_json(clips: Clips | None, estimates: Sequence[StageEstimate], device: Device) -> dict[str, Any]:
    """Plain values."""
    return {
        "clips": None if clips is None else clips.to_json(),
        "device": {"name": device.name, "processes": device.processes, "memory": device.memory},
        "stages": [stage.to_json() for stage in estimates],
    }
