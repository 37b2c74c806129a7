"""Examples as rows: the clip is decoded and processed where the row is drawn, in a data-loader worker or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from rbft.data.records import VideoRecord
from rbft.data.sampler import Draw
from rbft.video.clip import read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import Item
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt


@dataclass(frozen=True)
class Example:
    """A question about a video, and the answer to learn.

    Args:
        record: The video.
        prompt: The question.
        answer: What the model shall answer; None where nothing is trained.
        weight: In the loss.
    """

    record: VideoRecord
    prompt: Prompt
    answer: str | None = None
    weight: float = 1.0


class ExampleDataset(Dataset[Item]):
    """Rows of a stage.

    Args:
        examples: The rows' content.
        root: The data root.
        sampling: Which frames of a video are taken.
        max_pixels: Upper bound of height x width of a frame; None keeps the source size.
        processor: The model's processor.
        cache: Where decoded clips are kept; None decodes every time.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        root: Path,
        sampling: FrameSampling,
        max_pixels: int | None,
        processor: ClipProcessor,
        cache: ClipCache | None = None,
    ) -> None:
        self.examples = tuple(examples)
        self.root, self.sampling, self.processor = root, sampling, processor
        self._bound = processor.frame_bound(max_pixels)
        self._read = read_clip if cache is None else cache.read
        self.targets = [
            torch.empty(0, dtype=torch.long)
            if example.answer is None
            else processor.target_ids(example.prompt, example.answer)
            for example in self.examples
        ]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def supervised(self) -> list[float]:
        """Weight x supervised tokens of each example."""
        return [example.weight * len(target) for example, target in zip(self.examples, self.targets, strict=True)]

    def __getitem__(self, draw: Draw) -> Item:
        example = self.examples[draw.example]
        clip = self._read(
            example.record.path,
            self.sampling,
            max_pixels=self._bound.max_pixels,
            root=self.root,
            rng=np.random.default_rng(draw.seed),
            multiple=self._bound.multiple,
        )
        prompt = self.processor.prompt_inputs(example.prompt, clip, sized=self._bound.max_pixels is not None)
        return Item(draw.example, prompt, self.targets[draw.example], example.weight * draw.weight, draw.normalizer)
