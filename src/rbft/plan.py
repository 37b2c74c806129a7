"""What a run is going to do, counted before work starts: videos, frames, visual tokens, steps, device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rbft.experiment import Experiment
    from rbft.preparation import Prepared

_CLASSES_SHOWN = 12


def device_of(trainer: dict[str, Any]) -> tuple[str, int]:
    """Accelerator and number of processes that the trainer's settings will give."""
    accelerator, devices = trainer["accelerator"], trainer["devices"]
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    name = torch.cuda.get_device_name(0) if gpus else "CPU"
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices).lstrip("-").isdigit() and int(devices) > 0:
        count = int(devices)
    else:
        count = max(1, gpus)
    return name, count * int(trainer["num_nodes"])


def steps_of(prepared: Prepared, processes: int) -> tuple[int, int]:
    """Rows of an epoch and optimiser steps of a training stage."""
    config, data = prepared.config, prepared.datamodule
    videos = len(data.splits.train)
    samples = prepared.rationale_samples
    rows = {"rationale": videos * samples, "classification": videos, "joint": videos * (samples + 1)}[
        prepared.stage.kind
    ]
    trainer = config["trainer"]
    per_step = data.batch_size * processes * trainer["accumulate_grad_batches"]
    steps = math.ceil(rows / per_step) * (trainer["max_epochs"] or 1)
    return rows, min(steps, trainer["max_steps"]) if trainer["max_steps"] > 0 else steps


def print_plan(experiment: Experiment, prepared: Sequence[Prepared], console: Console) -> None:
    """Print the plan; decodes one clip to count its visual tokens."""
    first = prepared[0]
    data, labels = first.datamodule, first.datamodule.labels
    console.print(f"[bold]{escape(experiment.name)}[/] / {escape(experiment.variant)}: "
                  f"{' -> '.join(p.stage.name for p in prepared)}")  # fmt: skip
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("videos")
    splits = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    for name in splits:
        table.add_column(name, justify="right")
    counts = {name: Counter(record.label for record in records) for name, records in splits.items()}
    for label in labels.names[:_CLASSES_SHOWN]:
        table.add_row(escape(label), *(str(counts[name][label]) for name in splits))
    if len(labels) > _CLASSES_SHOWN:
        table.add_row(f"... {len(labels) - _CLASSES_SHOWN} more classes", *("" for _ in splits))
    table.add_row("all", *(str(len(records)) for records in splits.values()), style="bold")
    console.print(table)
    if data.splits.unused:
        console.print(f"{len(data.splits.unused)} labelled videos stay unused under this low-data protocol.")
    record = (data.splits.train or data.splits.test)[0]
    clip = data.clip(record.path, first.processor.frame_bound(data.max_pixels))
    inputs = first.processor.prompt_inputs(first.book.label_prompt(), clip, sized=data.max_pixels is not None)
    height, width = clip.frames.shape[-2:]
    device, processes = device_of(first.config["trainer"])
    console.print(
        f"clips: {len(clip.frames)} frames of {width}x{height}, "
        f"{first.processor.count_visual_tokens(inputs.ids)} visual tokens of a {len(inputs.ids)}-token label prompt "
        f"(first training video)\nmodel: {escape(first.module.name)} on {device}"
        + (f" x {processes}" if processes > 1 else "")
    )
    for entry in prepared:
        splits_of = entry.datamodule.splits
        if entry.stage.trains:
            rows, steps = steps_of(entry, processes)
            say = f"{rows} rows an epoch, {steps} steps"
        elif entry.stage.kind == "write":
            say = f"{len(splits_of.train)} videos, {entry.module.writer.samples} rationale(s) each"
        else:
            say = f"{len(splits_of.test)} videos against {len(labels)} labels"
        start = "" if entry.stage.kind == "write" else f", from {entry.stage.weights_from or 'the base model'}"
        console.print(f"  {escape(entry.stage.name)}: {say}{start}")
    console.print(f"run folder: {escape(str(experiment.run_dir))}\n")
