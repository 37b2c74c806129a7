"""What a run is going to do, counted before work starts: videos, frames, visual tokens, steps, device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.estimate.clip_costs import Range
from rbft.estimate.estimate import Estimator
from rbft.estimate.report import summary
from rbft.pipeline.stage_plan import describe_stage
from rbft.ranks import first_rank
from rbft.stages.cautions import built_in_cautions
from rbft.vlm.cost import UnknownCostError

if TYPE_CHECKING:
    from rbft.data.datamodule import VideoDataModule
    from rbft.experiment import Experiment
    from rbft.stages.read_stage import ReadStage

_CLASSES_SHOWN = 12


def print_plan(experiment: Experiment, prepared: Sequence[ReadStage], console: Console) -> None:
    """Print the plan.

    Raises:
        ModelError: The run cannot work: a stage's weights and optimiser alone are more than the device's memory, or a
            clip breaks the bound on visual tokens.
    """
    console.print(
        f"[bold]{escape(experiment.name)}[/] / {escape(experiment.variant)}: "
        f"{escape(' -> '.join(p.stage.name for p in prepared))}"
    )
    _print_videos(prepared[0].datamodule, console)
    # one process measures, and only it speaks
    estimator = Estimator.here(prepared[0].config["trainer"], seconds=0.3 if first_rank() else 0)
    _print_model(prepared, estimator, console)
    for entry in prepared:
        line = describe_stage(entry, estimator.device.processes)
        console.print(f"  {escape(entry.stage.name)}: {escape(line)}")
    _print_estimate(prepared, estimator, console)
    console.print(f"run folder: {escape(str(experiment.run_dir))}\n")


def _print_videos(data: VideoDataModule, console: Console) -> None:
    """The videos of each class and split, and how they came to be split so."""
    labels = data.labels
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
    if any(record.source[0] != "id" for records in splits.values() for record in records):
        table.add_row("groups", *(str(len({record.source for record in part})) for part in splits.values()))
    console.print(table)
    for note in data.split_notes:
        console.print(f"note: {escape(note)}")
    if data.splits.unused:
        console.print(f"{len(data.splits.unused)} labelled videos stay unused under this low-data protocol.")


def _print_model(prepared: Sequence[ReadStage], estimator: Estimator, console: Console) -> None:
    """The model, the clips that it is shown, and the device."""
    asked = [entry for entry in prepared if entry.stage.uses_model]
    clips = estimator.clips(asked[0]) if asked else None
    if clips is not None:
        frames, width, height = (_span(clips.ranges[name]) for name in ("frames", "width", "height"))
        tokens = _span(clips.ranges["visual tokens"])
        console.print(
            f"clips: {frames} frames, {width} wide and {height} high, {tokens} visual tokens "
            f"(most: {escape(clips.most_video)})"
        )
    name = prepared[0].module.name
    for caution in built_in_cautions(name, type(prepared[0].datamodule.format).__name__) if asked else ():
        console.print(f"[bold]warning:[/] {escape(caution)}")
    device = estimator.device
    many = f" x {device.processes}" if device.processes > 1 else ""
    console.print(f"model: {escape(name if asked else 'none beside the encoder,')} on {device.name}{many}")


def _print_estimate(prepared: Sequence[ReadStage], estimator: Estimator, console: Console) -> None:
    """Memory and time, where they are known."""
    try:
        estimates = estimator.possible(prepared)
    except UnknownCostError as error:
        console.print(f"estimate: none; {escape(str(error))}")
    else:
        if estimates:
            console.print(escape(summary(estimates)))


def methods_seconds(methods: Sequence[Sequence[ReadStage]]) -> tuple[list[float | None], float | None]:
    """Roughly the seconds that runs of one draw compute, without decoding videos and loading models.

    Args:
        methods: stages of each run, as `rbft.pipeline.prepare` makes them.

    Returns:
        Seconds of each run, and of all together, rationales that several train on counted once; None where a model's
        cost is not known.

    Raises:
        ModelError: A run cannot work: a stage does not fit the device's memory, whatever the batch.
    """
    estimator = Estimator.here(methods[0][0].config["trainer"], seconds=0.3)
    each: list[float | None] = []
    together = 0.0
    seen: set[str] = set()
    for prepared in methods:
        try:
            estimates = estimator.possible(prepared)
        except UnknownCostError:
            return [None] * len(methods), None
        seconds = {stage.name: stage.seconds or 0.0 for stage in estimates}
        each.append(sum(seconds.values()))
        for entry in prepared:
            if entry.stage.kind != "write" or entry.fingerprint not in seen:
                seen.add(entry.fingerprint)
                together += seconds.get(entry.stage.name, 0.0)
    return each, together


def _span(values: Range) -> str:
    low, _, high = values
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
