"""The clips of a run as its model sees them: frames, sizes and tokens, known without decoding."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from rbft.errors import ModelError
from rbft.evaluation.folds import video_folds
from rbft.experiment import ASKING_KINDS
from rbft.video.clip_spec import ClipShape
from rbft.vlm.cost import ModelSize, model_size
from rbft.vlm.processing import ClipCost, ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.sharded import shards

if TYPE_CHECKING:
    from rbft.data.datamodule import VideoDataModule
    from rbft.data.prompt_templates import PromptBook
    from rbft.data.records import VideoRecord
    from rbft.experiment import Stage
    from rbft.training.module import VLMFineTuner

KnownCosts = dict[tuple[ClipProcessor, Prompt, bool, ClipShape], ClipCost]
Range = tuple[float, float, float]
"""Least, median and largest value."""


@dataclass(frozen=True)
class StageParts:
    """What a stage's cost depends on.

    Args:
        stage: the stage.
        module: settings of its model, connected to processor and prompts.
        data: its videos, with their facts.
        config: resolved configuration.
        book: its prompts.
        processor: the model's processor.
    """

    stage: Stage
    module: VLMFineTuner
    data: VideoDataModule
    config: dict[str, Any]
    book: PromptBook
    processor: ClipProcessor

    @cached_property
    def folds(self) -> int:
        """How many times the training stages before it are run again, each without a part of the labelled videos."""
        answers = self.stage.kind in ASKING_KINDS and self.module.answering.crossfits
        if not answers or self.stage.weights_from is None:
            return 0
        folds = video_folds(self.data.splits.train, self.data.labels)
        return 0 if folds is None else int(folds.max()) + 1

    @property
    def mixed(self) -> bool:
        """Whether it computes in half precision beside weights of another."""
        return str(self.config["trainer"]["precision"]).endswith("mixed")

    @property
    def keeps_states(self) -> bool:
        """Whether it reads what leaves frozen layers of the language model from where it is kept."""
        sharded = shards(self.config["trainer"]["strategy"])
        return self.stage.trains and self.data.may_keep_states and not sharded


@dataclass(frozen=True)
class Clips:
    """The clips of all readable videos of the splits.

    Args:
        ranges: ranges of frames, width, height, visual tokens and text tokens of the question about the class.
        most_tokens: most visual tokens of a clip.
        most_video: a video whose clip has that many.
    """

    ranges: dict[str, Range]
    most_tokens: int
    most_video: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ranges = {
            name: dict(zip(("min", "median", "max"), values, strict=True)) for name, values in self.ranges.items()
        }
        return asdict(self) | {"ranges": ranges}


class ClipCosts:
    """What the clips of a stage's videos cost its model; clips of one shape are computed once.

    Args:
        parts: the stage.
        known: costs known from earlier stages; new ones are added.

    Raises:
        ModelError: A clip breaks the bound on visual tokens, or the processor refuses it.
    """

    def __init__(self, parts: StageParts, known: KnownCosts) -> None:
        self._data, self._processor = parts.data, parts.processor
        self._prompt = parts.book.label_prompt()
        self._known, self._by_shape = known, dict[ClipShape, ClipCost]()
        self._lengths: dict[Prompt, int] = {}

    def shape(self, record: VideoRecord) -> ClipShape:
        """Frames and their size."""
        facts = self._data.facts[record.path]
        return self._data.spec.shape(facts.timeline_of(record.part), facts.height, facts.width)

    def cost(self, record: VideoRecord) -> ClipCost:
        """Tokens with the question about the class."""
        shape = self.shape(record)
        if shape in self._by_shape:
            return self._by_shape[shape]
        sized = self._data.spec.sized
        key = (self._processor, self._prompt, sized, shape)
        if key not in self._known:
            seconds = self._data.facts[record.path].timeline_of(record.part).seconds or None
            self._known[key] = self._processor.clip_cost(*shape, prompt=self._prompt, seconds=seconds, sized=sized)
        cost, most = self._known[key], self._data.max_visual_tokens
        if most is not None and cost.visual_tokens > most:
            raise ModelError(
                f"data.max_visual_tokens is {most}, and {record.path} costs {cost.visual_tokens} visual tokens: "
                "how they grow with the clip is not known for this model. Lower data.num_frames instead."
            )
        self._by_shape[shape] = cost
        return cost

    def prompt_tokens(self, record: VideoRecord, prompt: Prompt) -> int:
        """Tokens of another question about a video's clip, visual ones included."""
        cost = self.cost(record)
        return cost.visual_tokens + cost.text_tokens + self._length(prompt) - self._length(self._prompt)

    def seconds_a_row(self) -> float:
        """Time that the processor takes to make a row's tokens, measured on the clip that costs most."""
        shape = max(self._by_shape, key=lambda shape: self._by_shape[shape].visual_tokens)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self._processor.clip_cost(*shape, prompt=self._prompt, sized=self._data.spec.sized)
            times.append(time.perf_counter() - start)
        return min(times)

    def _length(self, prompt: Prompt) -> int:
        """Tokens of the question without a clip."""
        if prompt not in self._lengths:
            self._lengths[prompt] = len(self._processor.prompt_inputs(replace(prompt, video=False), None).ids)
        return self._lengths[prompt]


def readable(data: VideoDataModule, records: Sequence[VideoRecord]) -> list[VideoRecord]:
    """Those videos that clips can be read from."""
    return [record for record in records if data.facts[record.path].readable]


def describe_clips(parts: StageParts, known: KnownCosts) -> Clips | None:
    """The clips of all readable videos of the splits, None if there is none; `known` is as for `ClipCosts`."""
    splits, costs = parts.data.splits, ClipCosts(parts, known)
    records = readable(parts.data, [*splits.train, *splits.val, *splits.test])
    if not records:
        return None
    shapes = [costs.shape(record) for record in records]
    tokens = [costs.cost(record).visual_tokens for record in records]
    most = max(tokens)
    ranges: dict[str, Sequence[float]] = {
        "frames": [shape.frames for shape in shapes],
        "width": [shape.width for shape in shapes],
        "height": [shape.height for shape in shapes],
        "visual tokens": tokens,
        "text tokens of the label question": [costs.cost(record).text_tokens for record in records],
    }
    spans = {name: (min(values), median(values), max(values)) for name, values in ranges.items()}
    return Clips(spans, most, records[tokens.index(most)].path)


def size_of(parts: StageParts, known: list[tuple[tuple[Any, ...], ModelSize]]) -> ModelSize:
    """The size of a stage's model; stages mostly share theirs, and building it takes a while."""
    module, mixed = parts.module, parts.mixed
    settings = (module.name, module.revision, module.dtype_, module.attention, module.tuning)
    size = next((size for other, size in known if other == (*settings, mixed)), None)
    if size is None:
        size = model_size(*settings, mixed=mixed)
        known.append(((*settings, mixed), size))
    return size


def trained_before(parts: StageParts, by_name: Mapping[str, StageParts]) -> list[StageParts]:
    """The training stages whose weights a stage builds on."""
    source, before = parts.stage.weights_from, list[StageParts]()
    while source is not None:
        before.append(by_name[source])
        source = before[-1].stage.weights_from
    return before
