"""What a stage is going to do, as one line of the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rbft.encoders.loading import EncoderFiles
from rbft.experiment import KINDS

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage


def describe_stage(entry: ReadStage, processes: int) -> str:
    """What a stage does, how often, and from which weights.

    Args:
        entry: the stage.
        processes: number of processes that work together.
    """
    kind, start = entry.stage.kind, entry.stage.weights_from
    if entry.stage.trains:
        say = _training(entry, processes)
    elif kind in _DESCRIBED:
        say = _DESCRIBED[kind](entry)
    else:
        say = _test(entry)
    own = not KINDS[kind].takes_weights or (kind == "write" and start is None)
    return say if own else f"{say}, from {start or 'the base model'}"


def _training(entry: ReadStage, processes: int) -> str:
    videos = len(entry.datamodule.splits.train)
    # answers about one clip are computed together
    steps = entry.steps((videos + entry.unlabelled) * entry.views, processes)
    say = f"{_rows(entry)} rows an epoch, {steps} steps"
    match = entry.stage.rationale_epochs
    say += f", and as many more as {match} epochs over the rationales have tokens" if match else ""
    return say + _upper_layers(entry)


def _rows(entry: ReadStage) -> int:
    """Rows of an epoch of a training stage."""
    videos, samples = len(entry.datamodule.splits.train), entry.rationale_samples
    texts = (videos + entry.unlabelled) * samples
    clips = (videos + entry.unlabelled) * entry.views
    rows = {"classification": videos, "self_distil": videos, "policy": videos, "joint": videos + texts, "distil": clips}
    return rows.get(entry.stage.kind, texts)


def _upper_layers(entry: ReadStage) -> str:
    """Where the upper layers alone are trained: what is kept of those below, or why it is not."""
    layers, data = getattr(entry.module.tuning, "layers", None), entry.datamodule
    if layers is None:
        return ""
    drawn = entry.config["data"]["frames"] == "random" and entry.views == 1
    objective = entry.module.objective
    why = {
        "each step writes its texts": objective is not None and objective.writes,
        "trainer.strategy fsdp2": entry.sharded,
        "data.cache_features false": data.features is None,
        "data.cache_states false": data.states is None,
        "data.frames random": drawn,
    }
    kept = next((f"computed in every epoch ({key})" for key, holds in why.items() if holds), "kept for later epochs")
    plural = "" if layers == 1 else "s"
    what = f"{layers:g} upper layer{plural}" if layers >= 1 else f"the upper {layers:g} of the layers"
    return f", trains {what}; what leaves those below is {kept}"


def _write(entry: ReadStage) -> str:
    writer = entry.module.writer
    say = f"{len(entry.datamodule.splits.train)} videos, {writer.samples} rationale(s) each"
    say += f", and {entry.unlabelled} unlabelled ones" if entry.unlabelled else ""
    say += ", and as many hinted to another class" if writer.contrast else ""
    attempts = len(writer.attempts(entry.book.prompts.hint))
    return say + (f", up to {attempts} attempts where none is kept" if attempts > 1 else "")


def _answer(entry: ReadStage) -> str:
    say = f"{len(entry.datamodule.splits.train)} videos"
    say += f" and {entry.unlabelled} unlabelled" if entry.unlabelled else ""
    return f"{say}, {entry.views} clip(s) each, answered after {entry.module.answering.samples} rationale(s)"


def _probe(entry: ReadStage) -> str:
    splits = entry.datamodule.splits
    return f"a linear probe fitted to {len(splits.train)} videos, {len(splits.test)} tested"


def _caption_probe(entry: ReadStage) -> str:
    splits = entry.datamodule.splits
    fitted, tested = len(splits.train) + len(splits.val), len(splits.test)
    say = f"{entry.module.writer.samples} description(s) each of {fitted + tested} videos, "
    return f"{say}a text classifier fitted to {fitted} of them, {tested} tested"


def _encoder_probe(entry: ReadStage) -> str:
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


def _combine(entry: ReadStage) -> str:
    weight = entry.stage.probe_weight
    how = "at the weight that labelled videos choose" if weight is None else f"{weight:g} of the latter"
    logs = "" if entry.stage.pool == "linear" else ", logarithms averaged"
    return f"the answers of {' and '.join(entry.stage.predictions_from)} mixed, {how}{logs}"


def _rationale_probe(entry: ReadStage) -> str:
    say = f"a text classifier fitted to the kept rationales of {entry.stage.rationales_from}, on what "
    return f"{say}{entry.stage.predictions_from[0]} has written of {len(entry.datamodule.splits.test)} videos"


_DESCRIBED: dict[str, Callable[[ReadStage], str]] = {
    "write": _write,
    "answer": _answer,
    "probe": _probe,
    "caption_probe": _caption_probe,
    "encoder_probe": _encoder_probe,
    "rationale_probe": _rationale_probe,
    "combine": _combine,
}
"""Neither training nor asking about the test videos."""


def _test(entry: ReadStage) -> str:
    splits, labels = entry.datamodule.splits, entry.datamodule.labels
    say = f"{len(splits.test)} videos against {len(labels)} labels{_reasoned(entry)}"
    if folds := entry.folds:
        say += f", chosen by cross-fitting: {' and '.join(before.stage.name for before in entry.trained_by)} "
        say += f"{folds} more times, without a part of the {len(splits.train)} labelled videos each"
    if entry.stage.kind == "demonstrations":
        most = entry.module.demonstrations.most([record.label for record in splits.train])
        say += f", with up to {most} labelled videos told of in the question"
    return say


def _reasoned(entry: ReadStage) -> str:
    """Of a test that writes about some of its videos, or for several classes."""
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
