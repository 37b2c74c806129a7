"""From a clip and a prompt to what the model is fed: one clip at a time, text rendered by the model's own template."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbft.errors import ConfigError, ModelError, VideoError
from rbft.video.budget import CellBudget
from rbft.video.clip import Clip
from rbft.video.clip_spec import ClipControl, ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import EncodedClip, PromptInputs
from rbft.vlm.chat import Chat
from rbft.vlm.loading import load_config, load_end_ids, load_processor
from rbft.vlm.prompt import Plain, Prompt
from rbft.vlm.tokens import TokenMaker
from rbft.vlm.unsupported import takes_modalities

_NO_VIDEO = (
    "the model's processor put no visual token into the prompt, so it would see no video; its chat template has no "
    "place for one. Choose a video model."
)
ProcessorKey = tuple[str, str | None, tuple[tuple[str, Plain], ...]]
"""What a `ClipProcessor` is made of."""

_ANY = Prompt("?")


class RefusedClipError(ModelError):
    """The processor refuses clips of this shape, as of frames that are hundreds of times wider than high."""


class ClipCost(NamedTuple):
    """What a clip costs the model.

    Args:
        visual_tokens: placeholders of visual features in the prompt.
        text_tokens: all other tokens of the prompt.
        pixel_values: numbers that the vision tower is fed.
    """

    visual_tokens: int
    text_tokens: int
    pixel_values: int


class ClipProcessor(Chat):
    """A model's processor behind one call for every family.

    Each clip is processed alone, because some families refuse clips of different lengths in one call; rows are put
    together later.

    Args:
        vlm: Built-in name, local folder or hub id.
        revision: revision of a hub id.
        template: Arguments of its chat template, by name.

    Raises:
        ModelError: The model takes no video or its files cannot be had.
    """

    def __init__(self, vlm: str, revision: str | None = None, template: Sequence[tuple[str, Plain]] = ()) -> None:
        processor, config = load_processor(vlm, revision), load_config(vlm, revision)
        super().__init__(processor, load_end_ids(vlm, revision, config, processor.tokenizer), dict(template))
        placeholders = [getattr(config, f"{kind}_token_id", None) for kind in ("video", "image")]
        self.visual_ids: tuple[int, ...] = tuple(int(i) for i in placeholders if i is not None)
        self.special_ids = tuple(sorted({*self.special_ids, *self.visual_ids}))
        self._modalities = takes_modalities(config)
        self._tokens = TokenMaker(processor, self._modalities)
        video = self._processor.video_processor
        if getattr(video, "cap_pixels_per_frame", False) is None:
            # undecided in the checkpoint: transformers keeps its own rule and warns; data.max_pixels is the bound here
            video.cap_pixels_per_frame = False
        patch, merge = getattr(video, "patch_size", None), getattr(video, "merge_size", None)
        # families with a free frame size cut frames into cells of this many pixels; the others have one fixed size
        self.cell: int | None = patch * merge if isinstance(patch, int) and isinstance(merge, int) else None
        size = getattr(video, "size", None)
        self._largest = getattr(size, "longest_edge", None) if self.cell is not None else None

    def clip_spec(
        self,
        sampling: FrameSampling,
        max_pixels: int | None = None,
        max_visual_tokens: int | None = None,
        control: ClipControl = "none",
    ) -> ClipSpec:
        """How clips are to be read under bounds of pixels a frame and visual tokens a clip.

        Where the family takes any frame size, frames are decoded to a whole number of cells at once, and the processor
        resizes nothing: it would enlarge frames below its own least size, and so cost more tokens than the bound says.
        There a bound of tokens makes frames smaller before it makes them fewer; in the others only fewer.

        Args:
            sampling: which frames.
            max_pixels: most pixels of a frame; None for no bound.
            max_visual_tokens: most visual tokens of a clip; None for no bound.
            control: what is taken from every clip.

        Raises:
            ConfigError: Not even a clip of one frame keeps to `max_visual_tokens`.
        """
        if self.cell is None:
            return ClipSpec(sampling.at_most(self._most_frames(max_visual_tokens)), max_pixels, control=control)
        if max_pixels is None and max_visual_tokens is None:
            return ClipSpec(sampling, control=control)
        pixels = min((bound for bound in (max_pixels, self._largest) if bound is not None), default=None)
        if max_visual_tokens is None:
            return ClipSpec(sampling, pixels, self.cell, control=control)
        group = getattr(self._processor.video_processor, "temporal_patch_size", None) or 1
        budget = CellBudget(max_visual_tokens, self.cell, group)
        return ClipSpec(sampling.at_most(budget.max_frames), pixels, self.cell, budget, control)

    def _most_frames(self, max_visual_tokens: int | None) -> int | None:
        """Most frames within a bound of tokens, where each costs the same whatever its size."""
        if max_visual_tokens is None:
            return None
        tokens_of_one, two = (self.clip_cost(frames, 64, 64).visual_tokens for frames in (1, 2))
        if tokens_of_one > max_visual_tokens:
            raise ConfigError(
                f"data.max_visual_tokens: a clip of one frame costs this model {tokens_of_one} visual tokens; "
                f"{max_visual_tokens} are too few."
            )
        return None if tokens_of_one == two else 1 + (max_visual_tokens - tokens_of_one) // (two - tokens_of_one)

    def clip_cost(
        self,
        frames: int,
        height: int,
        width: int,
        *,
        prompt: Prompt = _ANY,
        seconds: float | None = None,
        sized: bool = False,
    ) -> ClipCost:
        """What a clip costs, without its pixels: where it can be, the processor runs on tensors that have a shape only.

        Args:
            frames: Frames of the clip.
            height: height of a frame as it is decoded, in pixels.
            width: width of a frame as it is decoded, in pixels.
            prompt: The question about the clip.
            seconds: Length of the clip; some families write the times of frames into the prompt. None: 1 s a frame.
            sized: see `prompt_inputs`.

        Raises:
            RefusedClipError: The processor refuses such a clip.
        """
        shape = torch.empty((1, 3, height, width), dtype=torch.uint8, device="meta").expand(frames, -1, -1, -1)
        step = (seconds or frames) / frames
        times = tuple((number + 0.5) * step for number in range(frames))
        clip = Clip(shape, times, tuple(range(frames)), 1 / step, frames * step, frames, "a blank clip")
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # of the filter that tensors without pixels are resized with
        try:
            try:
                inputs = self.prompt_inputs(prompt, clip, sized=sized)
            except NotImplementedError:
                # some processors look at pixels; noise, because like frames cost some of them less
                noise = torch.randint(256, clip.frames.shape, dtype=torch.uint8, generator=torch.Generator())
                inputs = self.prompt_inputs(prompt, replace(clip, frames=noise), sized=sized)
        except VideoError as error:
            raise RefusedClipError(error.reason) from error
        finally:
            logging.set_verbosity(verbosity)
        visual = self.count_visual_tokens(inputs.ids)
        pixels = [value.numel() for key, value in inputs.vision.items() if key.startswith("pixel_values")]
        return ClipCost(visual, len(inputs.ids) - visual, sum(pixels))

    def prompt_inputs(self, prompt: Prompt, clip: Clip | None, *, sized: bool = False) -> PromptInputs:
        """Tokens and visual inputs of a prompt about a clip.

        Args:
            prompt: The question.
            clip: The clip; None only for a text-only prompt.
            sized: Whether the frames were decoded as `clip_spec` says, and stay as they are if they are whole cells.

        Raises:
            ModelError: The processor put no visual token into the prompt, so the model would see no video.
            VideoError: The processor refuses this clip.
        """
        text = self.render(prompt)
        if not prompt.video:
            return self._tokens(text)
        if clip is None:
            raise ValueError("a prompt about a video needs its clip")
        token = getattr(self._processor, "video_token", None)
        # processors refuse such a text themselves, but in words about their own arguments
        if token is not None and token not in text:
            raise ModelError(_NO_VIDEO)
        # frames_indices are always passed: without them Qwen3-VL fails, and others assume 24 frames a second
        try:
            inputs = self._tokens.process(
                text,
                clip.frames,
                video_metadata=[[clip.metadata()]],
                do_sample_frames=False,
                **({"do_resize": False} if sized and self.whole_cells(clip) else {}),
            )
        except ValueError as error:
            frames, _, height, width = clip.frames.shape
            raise VideoError(
                clip.path,
                f"the model's processor refuses a clip of {frames} frames of {width}x{height} pixels: {error}",
            ) from error
        if not inputs.vision or self.count_visual_tokens(inputs.ids) == 0:
            raise ModelError(_NO_VIDEO)
        return replace(inputs, video=clip.path)

    def plain_inputs(self, prompt: Prompt, clip: Clip) -> dict[str, Tensor]:
        """All that the processor gives for a prompt about a clip, for a pass of transformers alone."""
        settings: dict[str, Any] = {"video_metadata": [[clip.metadata()]], "do_sample_frames": False}
        return self._tokens.plain(self.render(prompt), clip.frames, **settings)

    def encoded_inputs(self, prompt: Prompt, clip: EncodedClip, video: str) -> PromptInputs:
        """What `prompt_inputs` gives, for a clip whose visual features are there: no pixels are needed.

        Args:
            prompt: A question about the clip, any one.
            clip: features of the clip.
            video: Path of its video, for messages.
        """
        return replace(self._tokens(self.render(prompt), clip.text), text=clip.text, encoded=clip, video=video)

    def another(self, prompt: Prompt, first: PromptInputs) -> PromptInputs:
        """Another question about the clip of `first`, whose visual inputs it shares."""
        if not prompt.video:
            return self.prompt_inputs(prompt, None)
        tokens = self._tokens(self.render(prompt), first.text)
        return replace(first, ids=tokens.ids, types=tokens.types, extras=tokens.extras)

    def fingerprint(self) -> str:
        """A hash of everything here that pixels depend on: settings, and the libraries that act on them."""
        libraries = {name: version(name) for name in ("transformers", "torchvision", "torch")}
        settings = [self._processor.to_json_string(), libraries]
        return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()

    def whole_cells(self, clip: Clip) -> bool:
        """Whether frames can be taken as they are; one smaller than a cell is left to the processor to enlarge."""
        height, width = clip.frames.shape[-2:]
        return self.cell is not None and height % self.cell == 0 and width % self.cell == 0

    @cached_property
    def wraps_frames(self) -> bool:
        """Whether the tokens that stand around a video in the template are put around each of its frames, too."""
        start = getattr(self._processor, "vision_start_token", None)
        frames = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
        clip = Clip(frames, (0.5, 1.5), (0, 1), 1.0, 2.0, 2, "a blank clip")
        return start is not None and start in self.prompt_inputs(_ANY, clip).text

    def wrapped_twice(self, text: str) -> str | None:
        """A rendered prompt with the tokens around its video doubled, where frames have them as well; else None.

        vLLM (up to 0.23 at least) puts the frames in the place of the video with the tokens around it, where
        transformers keeps those: it makes of this text what transformers makes of the plain one.
        """
        if not self.wraps_frames:
            return None
        start, end = self._processor.vision_start_token, self._processor.vision_end_token
        wrapped = f"{start}{self._processor.video_token}{end}"
        return text.replace(wrapped, f"{start}{wrapped}{end}")

    def count_visual_tokens(self, ids: Tensor) -> int:
        """How many placeholders of visual features stand in `ids`."""
        return int(torch.isin(ids, torch.tensor(self.visual_ids)).sum())

    def save(self, folder: str) -> None:
        """Write processor, tokenizer and chat template."""
        self._processor.save_pretrained(folder)

    def saved_in(self, folder: str) -> ClipProcessor:
        """This one with the processor that `save` wrote to a folder, as anybody loads it, in place of its own."""
        from transformers import AutoProcessor

        other = copy.copy(self)
        other._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        other._tokens = TokenMaker(other._processor, self._modalities)
        return other
