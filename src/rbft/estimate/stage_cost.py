"""What stages cost: memory and arithmetic, from a model's size and the tokens of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from rbft.estimate.clip_costs import Range
from rbft.vlm.cost import ModelSize
from rbft.vlm.label_scorer import TREE_NODES
from rbft.vlm.token_tree import TokenTree, split_by_size

# Operations of a transformer layer as transformers writes it, and how many times the cost of an operation alone the
# Python around it makes of each: 3.4 to 6.5 in small models of six families; backward takes three times forward.
_LAYER_OPERATIONS = 60
_PYTHON = 5
_BACKWARD_LAUNCHES = 3
# Of AdamW for each tensor; on a GPU many tensors share one.
_UPDATE_OPERATIONS = {"cpu": 12, "cuda": 1}


@dataclass(frozen=True)
class Row:
    """One row of a stage: a clip with what is asked and answered about it.

    Args:
        prompt: tokens of its prompt or prompts, visual ones included.
        visual: visual tokens.
        pixel_values: number of pixel values that the vision tower is fed.
        answer: tokens of the answers, at most.
        encode: number of times its clip is encoded in the stage; 0 where its features are kept from before.
    """

    prompt: int
    visual: int
    pixel_values: int
    answer: int = 0
    encode: float = 1.0

    @property
    def length(self) -> int:
        """All its tokens."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Args:
        weights: the model's weights, adapters included.
        training: gradients and the optimiser's moments.
        activations: peak of the activations, logits included.
        cache: keys and values of prompts and answers.
    """

    weights: int
    training: int = 0
    activations: int = 0
    cache: int = 0

    @property
    def certain(self) -> int:
        """What is needed whatever the batch."""
        return self.weights + self.training

    @property
    def total(self) -> int:
        """All together."""
        return self.certain + self.activations + self.cache


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


@dataclass(frozen=True)
class Work:
    """What a stage has to compute.

    Args:
        flops: floating-point operations.
        bytes: bytes of weights that are read for one token at a time.
        launches: launches of small operations.
    """

    flops: float = 0.0
    bytes: float = 0.0
    launches: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.launches + other.launches)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times, self.launches * times)


def training_memory(
    size: ModelSize,
    rows: Sequence[Row],
    batch_size: int,
    *,
    checkpointing: bool,
    processes: int,
    kind: str,
) -> Memory:
    """Memory of a training stage, if its longest rows meet in one micro-batch.

    Args:
        size: size of the model.
        rows: rows of an epoch.
        batch_size: rows of a micro-batch.
        checkpointing: whether activations are computed again in the backward pass.
        processes: number of devices that share a step; more than one keep gradients once more, to exchange them.
        kind: kind of device; on a GPU the optimiser works on all weights at once, with copies.
    """
    batch = min(batch_size, len(rows))
    longest, answer = max(row.length for row in rows), max(row.answer for row in rows)
    pixels, visual = max(row.pixel_values for row in rows), max(row.visual for row in rows)
    activations = (
        size.training_activations(batch, longest, answer, checkpointing=checkpointing)
        + size.vision_activations(pixels, batch, training=True, checkpointing=checkpointing)
        + size.features(batch * visual)
        + size.half_copies
    )
    return Memory(
        size.weight_bytes + size.master_bytes,
        size.training_state + (size.trained_bytes if processes > 1 else 0),
        max(activations, size.trained_bytes if kind == "cuda" else 0),
    )


def training_work(
    size: ModelSize,
    rows: Sequence[Row],
    epochs: float,
    steps: int,
    batch_size: int,
    *,
    checkpointing: bool,
    kind: str,
    keeps: bool = False,
) -> Work:
    """Work of a training stage, by all devices together.

    A forward pass; as much for gradients of activations; as much again for gradients of whole weights; and another
    forward pass where activations are computed anew. Below the layers that are trained, a forward pass alone.

    Args:
        size: size of the model.
        rows: rows of an epoch.
        epochs: number of times each row is computed.
        steps: optimiser steps, in all.
        batch_size: rows of a micro-batch.
        checkpointing: whether activations are computed again in the backward pass.
        kind: kind of device.
        keeps: whether what leaves the frozen layers is computed once for each row.
    """
    again = 1 if checkpointing else 0
    language = (3 if size.whole_language else 2) + again
    vision = 3 + again if size.vision_trained else 1
    flops = 0.0
    for row in rows:
        lower = size.lower_flops(row.length)
        upper = size.read_flops(row.length, row.answer) - lower + size.head_flops(row.answer)
        flops += epochs * language * upper + (1 if keeps else epochs) * lower
        flops += row.encode * vision * size.vision_flops(row.pixel_values, row.visual)
    encoded = sum(row.encode for row in rows)
    batches = epochs * len(rows) / batch_size
    passes = 1 + _BACKWARD_LAUNCHES + again
    below = size.language.layers - size.trained_layers
    launches = layer_launches(size.trained_layers * passes * batches + below * (len(rows) if keeps else batches))
    launches += layer_launches(size.vision.layers * encoded * (passes if size.vision_trained else 1))
    launches += steps * size.trained_tensors * _UPDATE_OPERATIONS[kind]
    return Work(flops, 0.0, launches)


def kept_states(size: ModelSize, rows: Sequence[Row]) -> int:
    """Bytes of what leaves the frozen layers for all rows of an epoch; 0 where there are no frozen layers."""
    below = size.trained_layers < size.language.layers
    return sum(row.length for row in rows) * size.language.width * size.stream if below else 0


def writing_memory(size: ModelSize, rows: Sequence[Row], batch_size: int, samples: int) -> Memory:
    """Memory of writing `samples` answers to each prompt, all of full length."""
    batch = min(batch_size, len(rows))
    prompt, answer = max(row.prompt for row in rows), max(row.answer for row in rows)
    # the cache of the prompts lives on while it is repeated for the samples
    tokens = batch * (samples * (prompt + answer) + (prompt if samples > 1 else 0))
    return Memory(
        size.weight_bytes,
        activations=_reading(size, rows, batch) + size.logits(batch * samples),
        cache=size.kv_cache(tokens),
    )


def writing_work(size: ModelSize, rows: Sequence[Row], batch_size: int, samples: int) -> Work:
    """Work of writing `samples` answers to each prompt, all of full length: a token reads all weights once a batch."""
    flops = 0.0
    for row in rows:
        flops += size.read_flops(row.prompt, 1) + row.encode * size.vision_flops(row.pixel_values, row.visual)
        flops += samples * row.answer * (2.0 * size.language.linear + size.head_flops(1))
    steps = max(row.answer for row in rows) * len(rows) / batch_size
    layers = size.language.layers * (steps + len(rows) / batch_size) + size.vision.layers * sum(r.encode for r in rows)
    return Work(flops, steps * size.weight_bytes, layer_launches(layers))


def scoring_memory(
    size: ModelSize, rows: Sequence[Row], batch_size: int, labels: Sequence[Tensor], max_tokens: int
) -> Memory:
    """Memory of scoring all labels after each prompt.

    Args:
        size: size of the model.
        rows: the prompts.
        batch_size: prompts of a batch.
        labels: token ids of each label.
        max_tokens: tokens of labels read at a time.
    """
    batch = min(batch_size, len(rows))
    prompt, longest = max(row.prompt for row in rows), max(map(len, labels)) - 1
    if size.takes_tree_masks:
        groups = split_by_size(labels, min(max_tokens, TREE_NODES))
        fed = batch * max(len(TokenTree.of([labels[i] for i in group])) for group in groups)
        cached = batch * prompt + fed
    else:
        # each label has a row and a copy of its prompt's cache
        at_once = min(len(labels), max(1, max_tokens // ((longest + prompt) * batch)))
        fed = batch * at_once * longest
        cached = batch * prompt * (1 + at_once) + fed
    # the prompts are read before the labels
    reading = _reading(size, rows, batch) + size.logits(batch)
    labelling = size.features(batch * max(row.visual for row in rows)) + size.scored_logits(fed)
    return Memory(size.weight_bytes, activations=max(reading, labelling), cache=size.kv_cache(cached))


def scoring_work(size: ModelSize, rows: Sequence[Row], batch_size: int, labels: Sequence[int]) -> Work:
    """Work of scoring all labels after each prompt; `labels` are their numbers of tokens."""
    tail = sum(tokens - 1 for tokens in labels)
    flops = 0.0
    for row in rows:
        flops += size.read_flops(row.prompt, 1) + row.encode * size.vision_flops(row.pixel_values, row.visual)
        flops += tail * 2.0 * size.language.linear + size.head_flops(1 + tail)
    layers = 2 * size.language.layers * len(rows) / batch_size + size.vision.layers * sum(row.encode for row in rows)
    return Work(flops, 0.0, layer_launches(layers))


def encoding_memory(size: ModelSize, rows: Sequence[Row], batch_size: int) -> Memory:
    """Memory of encoding a batch of clips one after another, and of keeping their features."""
    batch, visual = min(batch_size, len(rows)), max(row.visual for row in rows)
    vision = size.vision_activations(max(row.pixel_values for row in rows), batch, training=False)
    return Memory(size.weight_bytes, activations=vision + size.features(batch * visual))


def encoding_work(size: ModelSize, rows: Sequence[Row]) -> Work:
    """Work of encoding clips; the language model reads nothing."""
    flops = sum(row.encode * size.vision_flops(row.pixel_values, row.visual) for row in rows)
    return Work(flops, 0.0, layer_launches(size.vision.layers * sum(row.encode for row in rows)))


def _reading(size: ModelSize, rows: Sequence[Row], batch: int) -> int:
    pixels, visual = max(row.pixel_values for row in rows), max(row.visual for row in rows)
    return (
        size.reading_activations(batch, max(row.prompt for row in rows))
        + size.vision_activations(pixels, batch, training=False)
        + size.features(batch * visual)
    )


def layer_launches(layers: float) -> float:
    """Launches of small operations that the forward pass of so many layers takes."""
    return layers * _LAYER_OPERATIONS * _PYTHON
