"""Examples as rows: the clip is decoded and processed where the row is drawn, in a data-loader worker or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from rbft.data.held_prompts import HeldPrompts
from rbft.data.records import VideoRecord
from rbft.data.sampler import Draw
from rbft.errors import DataError
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_entry import clip_key, content_name
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import resolve_inside
from rbft.video.content import content_digest
from rbft.vlm.batch import Item, PromptInputs
from rbft.vlm.feature_cache import FeatureCache, feature_key
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt


@dataclass(frozen=True)
class Example:
    """A question about a video, and the answer to learn.

    Args:
        record: The video.
        prompt: The question.
        answer: text that the model learns to answer; None where nothing is trained, or the objective has it written.
        weight: weight in the loss, in proportion to those of the other rows.
        whole: Whether the weight is of the answer as a whole; else it is of each of its tokens.
        value: a number that the objective gives the row, such as the probability that it is to learn.
        frames_seed: seed by which a frame is drawn in each segment of the video, the same every time; None: the frames
            that the stage takes.
        contrast: another video that the same is asked about, for an objective that compares; None: none.
    """

    record: VideoRecord
    prompt: Prompt
    answer: str | None = None
    weight: float = 1.0
    whole: bool = False
    value: float = 0.0
    frames_seed: int | None = None
    contrast: VideoRecord | None = None


class ExampleDataset(Dataset[list[Item]]):
    """Rows of a stage, by clip: all that is asked about a clip comes together, so that the clip is computed once.

    Args:
        examples: content of the rows.
        root: the data root.
        spec: how clips are read.
        processor: processor of the model.
        cache: where decoded clips are kept; None decodes every time.
        features: where encoded clips are kept; None encodes every time.
        digests: hash of each video's content by its path, as the run knows it; a video that is another one meanwhile is
            refused.
        retimed: paths of videos whose clips are others than earlier versions made them.
        held_bytes: most bytes of memory in which what the model is asked about clips whose features are kept stays for
            later epochs; 0 makes it anew each time.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        root: Path,
        spec: ClipSpec,
        processor: ClipProcessor,
        cache: ClipCache | None = None,
        features: FeatureCache | None = None,
        digests: Mapping[str, str] | None = None,
        retimed: Collection[str] = (),
        held_bytes: int = 0,
    ) -> None:
        self.examples = tuple(examples)
        self.root, self.spec, self.processor = root, spec, processor
        self._read = read_clip if cache is None else cache.read
        self._features = features
        self._digests, self._retimed = digests or {}, frozenset(retimed)
        self._pixels = processor.fingerprint()
        self._vision: str | None = None
        self._held = HeldPrompts(held_bytes)
        self.targets = [
            torch.empty(0, dtype=torch.long)
            if example.answer is None
            else processor.target_ids(example.prompt, example.answer)
            for example in self.examples
        ]
        self._units = [self._count(number) for number in range(len(self.examples))]
        weighted = sum(example.weight * units for example, units in zip(self.examples, self._units, strict=True))
        self._mean_weight = weighted / sum(self._units) if any(self._units) else 1.0

        clips: dict[tuple[str, tuple[float, float] | None, int | None], list[int]] = {}
        for number, example in enumerate(self.examples):
            clips.setdefault((example.record.path, example.record.part, example.frames_seed), []).append(number)
        self.clips = list(clips.values())

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def supervised(self) -> list[int]:
        """What the loss of each clip is a sum over: tokens of its answers, or answers that count as a whole."""
        return [sum(self._units[i] for i in clip) for clip in self.clips]

    @property
    def lengths(self) -> list[int]:
        """Tokens of all answers of each clip, whatever they weigh."""
        return [sum(len(self.targets[i]) for i in clip) for clip in self.clips]

    def _count(self, number: int) -> int:
        example, tokens = self.examples[number], len(self.targets[number])
        if example.weight == 0:
            return 0
        # an answer that is yet to be written counts as one
        return 1 if example.whole else tokens

    def _weight(self, number: int) -> float:
        """Weight of each token of an example's answer; the mean over all that is supervised is 1."""
        example = self.examples[number]
        weight = example.weight / self._mean_weight
        return weight / max(1, len(self.targets[number])) if example.whole else weight

    def use_vision(self, digest: str | None) -> None:
        """Take clips from where encoded ones are kept, and have those that are not there stored.

        To be said before a loader is made: its workers have a copy of the data set.

        Args:
            digest: digest of all that encodes clips; None where that is trained, so that features do not last.
        """
        self._vision = digest

    def __getitem__(self, draw: Draw) -> list[Item]:
        numbers = self.clips[draw.clip]
        return [
            Item(
                number,
                prompt,
                self.targets[number],
                self._weight(number) * draw.weight,
                draw.normalizer,
                self.examples[number].value,
            )
            for number, prompt in zip(numbers, self._prompts(draw), strict=True)
        ]

    def _prompts(self, draw: Draw) -> list[PromptInputs]:
        """What the model is asked about a clip, row by row; held from then on if its features are there."""
        numbers = self.clips[draw.clip]
        examples = [self.examples[number] for number in numbers]
        compared = [None if e.contrast is None else replace(e, record=e.contrast, frames_seed=None) for e in examples]
        asked = [examples[0], *(other for other in compared if other is not None)]
        keys = tuple(key for example in asked if (key := self._feature_key(example)) is not None)
        # a key holds the hash of the video as it is now, so what is held under it is of that video
        if (held := self._held.load(draw.clip, keys)) is not None:
            return held
        first = self._first(examples[0], draw.seed)
        prompts = [first, *(self.processor.another(example.prompt, first) for example in examples[1:])]
        prompts = [
            prompt if other is None else replace(prompt, other=self._first(other, draw.seed))
            for prompt, other in zip(prompts, compared, strict=True)
        ]
        read = [first, *(prompt.other for prompt in prompts if prompt.other is not None)]
        # features of a video that was replaced in between are of another key
        if len(keys) == len(asked) and all(p.encoded is not None for p in read) and [p.key for p in read] == [*keys]:
            self._held.store(draw.clip, keys, prompts)
        return prompts

    def _first(self, example: Example, seed: tuple[int, ...]) -> PromptInputs:
        inputs = self._inputs(example, seed)
        # after the read: what was read before the file was replaced is as good, and the same again would not be
        known = self._digests.get(example.record.path, "") if example.prompt.video else ""
        require_same(self.root / example.record.path, known)
        return inputs

    def _inputs(self, example: Example, seed: tuple[int, ...]) -> PromptInputs:
        key = self._feature_key(example)
        if key is not None and self._features is not None:
            encoded = self._features.load(key)
            if encoded is not None:
                inputs = self.processor.encoded_inputs(example.prompt, encoded, example.record.path)
                return replace(inputs, key=key)
        clip = self._clip(example, seed)
        prompt = self.processor.prompt_inputs(example.prompt, clip, sized=self.spec.sized)
        # features of a video that was replaced while it was decoded are nobody's
        return replace(prompt, key=key) if key == self._feature_key(example) else prompt

    def _feature_key(self, example: Example) -> str | None:
        """Under which the features of an example's clip are kept.

        None where they are not: random frames hardly repeat and would only fill the disk.
        """
        fleeting = self.spec.sampling.mode == "random" and example.frames_seed is None
        if self._features is None or self._vision is None or fleeting or not example.prompt.video:
            return None
        # a video with stored features is refused for the same reasons as one to decode
        resolve_inside(self.root, example.record.path)
        path = example.record.path
        content = content_name(content_digest(self.root / path), path in self._retimed)
        clip = clip_key(content, self._spec_of(example))
        drawn = "" if example.frames_seed is None else f":{example.frames_seed}"
        return feature_key(clip + drawn, self.spec.control, self._pixels, self._vision)

    def blank(self) -> PromptInputs:
        """The first example's question about a clip of that size that shows nothing: all frames are grey."""
        blank = self._clip(self.examples[0], (0,)).under("blank")
        return self.processor.prompt_inputs(self.examples[0].prompt, blank, sized=self.spec.sized)

    def _clip(self, example: Example, seed: tuple[int, ...]) -> Clip:
        seed = seed if example.frames_seed is None else (example.frames_seed,)
        return self._read(example.record.path, self._spec_of(example), self.root, np.random.default_rng(seed))

    def _spec_of(self, example: Example) -> ClipSpec:
        spec = self.spec if example.frames_seed is None else self.spec.with_mode("random")
        return spec.of_part(example.record.part)


def require_same(video: Path, digest: str) -> None:
    """Refuse a video that was replaced since the run looked at it.

    Args:
        video: the file.
        digest: hash of its content as the run knows it; empty where it is not known.

    Raises:
        DataError: It is another one.
    """
    if digest and content_digest(video) != digest:
        raise DataError(
            f"{video} was replaced while the run was going, so that its stages would not be of the same videos. Give "
            "the same command again: what was made from the old file is made anew."
        )
