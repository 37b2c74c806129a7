"""The clips of a run as its model sees them: frames, sizes and tokens, known without decoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from rbft.errors import ModelError
from rbft.video.clip_spec import ClipShape
from rbft.vlm.cost import ModelSize, model_size
from rbft.vlm.processing import ClipCost, ClipProcessor, RefusedClipError
from rbft.vlm.prompt import Prompt

if TYPE_CHECKING:
    from rbft.data.datamodule import VideoDataModule
    from rbft.data.records import VideoRecord
    from rbft.stages.read_stage import ReadStage

KnownCosts = dict[tuple[ClipProcessor, Prompt, bool, ClipShape], ClipCost]
Range = tuple[float, float, float]
"""Least, median and largest value."""


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
        entry: the stage.
        known: costs known from earlier stages; new ones are added.

    Raises:
        ModelError: A clip breaks the bound on visual tokens, or the processor refuses it.
    """

    def __init__(self, entry: ReadStage, known: KnownCosts) -> None:
        self._data, self._processor = entry.datamodule, entry.module.processor
        self._prompt = entry.book.label_prompt()
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
            try:
                self._known[key] = self._processor.clip_cost(*shape, prompt=self._prompt, seconds=seconds, sized=sized)
            except RefusedClipError as error:
                raise ModelError(f"{record.path}: {error}. Take the video out of the data set, or crop it.") from error
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


def describe_clips(entry: ReadStage, known: KnownCosts) -> Clips | None:
    """The clips of all readable videos of the splits, None if there is none; `known` is as for `ClipCosts`."""
    splits, costs = entry.datamodule.splits, ClipCosts(entry, known)
    records = readable(entry.datamodule, [*splits.train, *splits.val, *splits.test])
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


def size_of(entry: ReadStage, known: list[tuple[tuple[Any, ...], ModelSize]]) -> ModelSize:
    """The size of a stage's model; stages mostly share theirs, and building it takes a while."""
    module, mixed = entry.module, entry.mixed
    settings = (module.name, module.revision, module.dtype_, module.attention, module.tuning)
    size = next((size for other, size in known if other == (*settings, mixed)), None)
    if size is None:
        size = model_size(*settings, mixed=mixed)
        known.append(((*settings, mixed), size))
    return size
