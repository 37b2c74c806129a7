"""What a run is going to do, counted before work starts: videos, frames, visual tokens, steps, device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.data.shot_sampling import group_of
from rbft.encoders.loading import EncoderFiles
from rbft.estimate.clip_costs import Range, StageParts
from rbft.estimate.estimate import Estimator
from rbft.estimate.report import summary
from rbft.estimate.stage_estimate import steps_of
from rbft.ranks import first_rank
from rbft.stages.cautions import built_in_cautions
from rbft.stages.crossfit import fold_count
from rbft.vlm.cost import UnknownCostError
from rbft.vlm.sharded import shards

if TYPE_CHECKING:
    from rbft.experiment import Experiment
    from rbft.stages.context import Prepared

_CLASSES_SHOWN = 12


def rows_of(prepared: Prepared) -> int:
    """Rows of an epoch of a training stage."""
    videos, samples = len(prepared.datamodule.splits.train), prepared.rationale_samples
    texts = (videos + prepared.unlabelled) * samples
    clips = (videos + prepared.unlabelled) * prepared.views
    rows = {"classification": videos, "self_distil": videos, "policy": videos, "joint": videos + texts, "distil": clips}
    return rows.get(prepared.stage.kind, texts)


def print_plan(experiment: Experiment, prepared: Sequence[Prepared], console: Console) -> None:
    """Print the plan.

    Raises:
        ModelError: The run cannot work: a stage's weights and optimiser alone are more than the device's memory, or a
            clip breaks the bound on visual tokens.
    """
    first = prepared[0]
    data, labels = first.datamodule, first.datamodule.labels
    console.print(
        f"[bold]{escape(experiment.name)}[/] / {escape(experiment.variant)}: "
        f"{escape(' -> '.join(p.stage.name for p in prepared))}"
    )
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
    if any(group_of(record)[0] != "id" for records in splits.values() for record in records):
        table.add_row("groups", *(str(len({group_of(record) for record in part})) for part in splits.values()))
    console.print(table)
    for note in data.split_notes:
        console.print(f"note: {escape(note)}")
    if data.splits.unused:
        console.print(f"{len(data.splits.unused)} labelled videos stay unused under this low-data protocol.")
    parts = [_parts_of(entry) for entry in prepared]
    # one process measures, and only it speaks
    estimator = Estimator.here(first.config["trainer"], seconds=0.3 if first_rank() else 0)
    asked = [part for part in parts if part.stage.kind != "encoder_probe"]
    device, clips = estimator.device, estimator.clips(asked[0]) if asked else None
    if clips is not None:
        frames, width, height = (_span(clips.ranges[name]) for name in ("frames", "width", "height"))
        tokens = _span(clips.ranges["visual tokens"])
        console.print(
            f"clips: {frames} frames, {width} wide and {height} high, {tokens} visual tokens "
            f"(most: {escape(clips.most_video)})"
        )
    for caution in built_in_cautions(first.module.name, type(data.format).__name__) if asked else ():
        console.print(f"[bold]warning:[/] {escape(caution)}")
    processes = device.processes
    name = first.module.name if asked else "none beside the encoder,"
    console.print(f"model: {escape(name)} on {device.name}" + (f" x {processes}" if processes > 1 else ""))
    for entry in prepared:
        splits_of = entry.datamodule.splits
        if entry.stage.trains:
            rows, trainer = rows_of(entry), entry.config["trainer"]
            per_step = entry.datamodule.batch_size * processes * trainer["accumulate_grad_batches"]
            # answers about one clip are computed together
            steps = steps_of((len(splits_of.train) + entry.unlabelled) * entry.views, per_step, trainer)
            say = f"{rows} rows an epoch, {steps} steps"
            match = entry.stage.rationale_epochs
            say += f", and as many more as {match} epochs over the rationales have tokens" if match else ""
            say += _upper_layers(entry)
        elif entry.stage.kind == "write":
            say = f"{len(splits_of.train)} videos, {entry.module.writer.samples} rationale(s) each"
            say += f", and {entry.unlabelled} unlabelled ones" if entry.unlabelled else ""
            say += ", and as many hinted to another class" if entry.module.writer.contrast else ""
            attempts = len(entry.module.writer.attempts(entry.book.prompts.hint))
            say += f", up to {attempts} attempts where none is kept" if attempts > 1 else ""
        elif entry.stage.kind == "answer":
            say = f"{len(splits_of.train)} videos" + (f" and {entry.unlabelled} unlabelled" if entry.unlabelled else "")
            say += f", {entry.views} clip(s) each, answered after {entry.module.answering.samples} rationale(s)"
        elif entry.stage.kind == "probe":
            say = f"a linear probe fitted to {len(splits_of.train)} videos, {len(splits_of.test)} tested"
        elif entry.stage.kind == "caption_probe":
            fitted = len(splits_of.train) + len(splits_of.val)
            say = f"{entry.module.writer.samples} description(s) each of {fitted + len(splits_of.test)} videos, "
            say += f"a text classifier fitted to {fitted} of them, {len(splits_of.test)} tested"
        elif entry.stage.kind == "encoder_probe":
            say = _encoder(entry)
        elif entry.stage.kind == "combine":
            weight = entry.stage.probe_weight
            how = "at the weight that labelled videos choose" if weight is None else f"{weight:g} of the latter"
            say = f"the answers of {' and '.join(entry.stage.mixes)} mixed, {how}"
        else:
            say = f"{len(splits_of.test)} videos against {len(labels)} labels{_reasoned(entry)}"
            if number := fold_count(entry.stage, entry.module, entry.datamodule):
                say += f", chosen by cross-fitting: {' and '.join(before.stage.name for before in entry.trained_by)} "
                say += f"{number} more times, without a part of the {len(splits_of.train)} labelled videos each"
            if entry.stage.kind == "demonstrations":
                most = entry.module.demonstrations.most([record.label for record in splits_of.train])
                say += f", with up to {most} labelled videos told of in the question"
        first_words = entry.stage.kind == "write" and entry.stage.weights_from is None
        own = first_words or entry.stage.kind in ("encoder_probe", "combine")
        start = "" if own else f", from {entry.stage.weights_from or 'the base model'}"
        console.print(f"  {escape(entry.stage.name)}: {say}{escape(start)}")
    try:
        estimates = estimator.possible(parts)
    except UnknownCostError as error:
        console.print(f"estimate: none; {escape(str(error))}")
    else:
        if estimates:
            console.print(escape(summary(estimates)))
    console.print(f"run folder: {escape(str(experiment.run_dir))}\n")


def _parts_of(entry: Prepared) -> StageParts:
    parts = (entry.stage, entry.module, entry.datamodule, entry.config, entry.book, entry.processor)
    return StageParts(*parts, folds=fold_count(entry.stage, entry.module, entry.datamodule))


def methods_seconds(methods: Sequence[Sequence[Prepared]]) -> tuple[list[float | None], float | None]:
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
            estimates = estimator.possible([_parts_of(entry) for entry in prepared])
        except UnknownCostError:
            return [None] * len(methods), None
        seconds = {stage.name: stage.seconds or 0.0 for stage in estimates}
        each.append(sum(seconds.values()))
        for entry in prepared:
            if entry.stage.kind != "write" or entry.fingerprint not in seen:
                seen.add(entry.fingerprint)
                together += seconds.get(entry.stage.name, 0.0)
    return each, together


def _reasoned(entry: Prepared) -> str:
    """What is said of a test that writes about some of its videos, or for several classes."""
    answering = entry.module.answering
    if answering.mode == "argued":
        classes = min(answering.most_argued, len(entry.datamodule.labels))
        return f", a rationale for each of the {classes} likeliest"
    if answering.mode != "gated":
        return ""
    if answering.gate is not None:
        return f", a rationale where the likeliest class has less than {answering.gate:g}"
    most = f" (at most {answering.most_reasoned:.0%} of them)" if answering.most_reasoned < 1 else ""
    return f", a rationale where the direct answer is less sure than a gate that labelled videos choose{most}"


def _encoder(entry: Prepared) -> str:
    """What is said of a stage that has an encoder of its own."""
    splits, folder = entry.datamodule.splits, entry.module.encoder.folder
    assert folder is not None, "checked before"
    files, fitted = EncoderFiles(folder), (*splits.train, *splits.val)
    say = f"{len({*fitted, *splits.test})} videos encoded once by {files.family.name} in {folder} ({files.frames} "
    say += f"frames, {files.positions} positions in time, {entry.module.encoder.features} features), "
    say += f"a linear classifier fitted to {len(fitted)} of them, {len(splits.test)} tested"
    facts = entry.datamodule.facts
    readable = [r for r in (*fitted, *splits.test) if facts[r.path].readable]
    short = sum(facts[record.path].timeline_of(record.part).num_frames < files.frames for record in readable)
    return say + (f"; {short} have fewer frames and repeat some" if short else "")


def _upper_layers(entry: Prepared) -> str:
    """What is said of a stage that trains the upper layers alone: what is kept of those below, or why it is not."""
    layers, data = getattr(entry.module.tuning, "layers", None), entry.datamodule
    if layers is None:
        return ""
    drawn = entry.config["data"]["frames"] == "random" and entry.views == 1
    why = {
        "trainer.strategy fsdp2": shards(entry.config["trainer"]["strategy"]),
        "data.cache_features false": data.features is None,
        "data.cache_states false": data.states is None,
        "data.frames random": drawn,
    }
    kept = next((f"computed in every epoch ({key})" for key, holds in why.items() if holds), "kept for later epochs")
    plural = "" if layers == 1 else "s"
    what = f"{layers:g} upper layer{plural}" if layers >= 1 else f"the upper {layers:g} of the layers"
    return f", trains {what}; what leaves those below is {kept}"


def _span(values: Range) -> str:
    low, _, high = values
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
