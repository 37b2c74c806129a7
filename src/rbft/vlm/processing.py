"""From a clip and a prompt to what the model is fed: one clip at a time, text rendered by the model's own template."""

from __future__ import annotations

import unicodedata
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor

from rbft.errors import ConfigError, ModelError
from rbft.video.clip import Clip
from rbft.vlm.batch import PromptInputs
from rbft.vlm.loading import load_config, load_end_ids, load_processor
from rbft.vlm.prompt import Prompt

_TEXT_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
_NO_VIDEO = (
    "the model's processor put no visual token into the prompt, so it would see no video; its chat template has no "
    "place for one. Choose a video model."
)


class FrameBound(NamedTuple):
    """Bounds of decoded frames.

    Args:
        max_pixels: Most pixels of a frame; None for no bound.
        multiple: What both sides are multiples of.
    """

    max_pixels: int | None
    multiple: int


class ClipProcessor:
    """A model's processor behind one call for every family.

    Each clip is processed alone, because some families refuse clips of different lengths in one call; rows are put
    together later.

    Args:
        vlm: Built-in name, local folder or hub id.
        revision: Of a hub id.

    Raises:
        ModelError: The model takes no video or its files cannot be had.
    """

    def __init__(self, vlm: str, revision: str | None = None) -> None:
        self._processor = load_processor(vlm, revision)
        config = load_config(vlm, revision)
        tokenizer = self._processor.tokenizer
        placeholders = [getattr(config, f"{kind}_token_id", None) for kind in ("video", "image")]
        self.visual_ids: tuple[int, ...] = tuple(int(i) for i in placeholders if i is not None)
        special = dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True))
        # tokens that are special without a role of their own stand only here
        special |= {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_tokens: tuple[str, ...] = tuple(sorted(set(special.values())))
        self.special_ids: tuple[int, ...] = tuple(sorted({*special, *self.visual_ids}))
        video = self._processor.video_processor
        if getattr(video, "cap_pixels_per_frame", False) is None:
            # undecided in the checkpoint: transformers keeps its own rule and warns; data.max_pixels is the bound here
            video.cap_pixels_per_frame = False
        patch, merge = getattr(video, "patch_size", None), getattr(video, "merge_size", None)
        # families with a free frame size cut frames into cells of this many pixels; the others have one fixed size
        self.cell: int | None = patch * merge if isinstance(patch, int) and isinstance(merge, int) else None
        size = getattr(video, "size", None)
        self._largest = getattr(size, "longest_edge", None) if self.cell is not None else None
        self.end_ids: tuple[int, ...] = load_end_ids(vlm, revision, config, tokenizer)
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def frame_bound(self, max_pixels: int | None) -> FrameBound:
        """How frames are to be decoded under a bound of `max_pixels`.

        Where the family takes any frame size, frames are decoded to a whole number of cells at once, and the processor
        resizes nothing: it would enlarge frames below its own least size, and so cost more tokens than the bound says.
        """
        if max_pixels is None or self.cell is None:
            return FrameBound(max_pixels, 2)
        return FrameBound(min(max_pixels, self._largest or max_pixels), self.cell)

    def check_plain(self, text: str, what: str) -> None:
        """Refuse text from data or configuration that would be read as a special token.

        Raises:
            ConfigError: Names the text and the token.
        """
        for token in self.special_tokens:
            if token in text:
                raise ConfigError(f"{what}: {text[:80]!r} contains {token!r}, a special token of the model; reword it.")

    def render(self, prompt: Prompt, answer: str | None = None) -> str:
        """The conversation as one string; without an answer it ends where the model starts to write."""
        self.check_plain(prompt.question, "prompt")
        if prompt.system is not None:
            self.check_plain(prompt.system, "system")
        if answer is not None:
            self.check_plain(answer, "answer")
        # the template is passed by name because SmolVLM's processor otherwise swaps in another one for video
        try:
            text: str = self._processor.apply_chat_template(
                prompt.messages(answer),
                tokenize=False,
                add_generation_prompt=answer is None,
                chat_template=self._processor.chat_template,
            )
        except TemplateError as error:
            raise ModelError(f"the model's chat template cannot render a conversation: {error}") from error
        return text

    def prompt_inputs(self, prompt: Prompt, clip: Clip | None, *, sized: bool = False) -> PromptInputs:
        """Tokens and visual inputs of a prompt about a clip.

        Args:
            prompt: The question.
            clip: The clip; None only for a text-only prompt.
            sized: Whether the frames were decoded under `frame_bound`, and stay as they are if they are whole cells.

        Raises:
            ModelError: The processor put no visual token into the prompt, so the model would see no video.
        """
        text = self.render(prompt)
        if not prompt.video:
            ids = self._processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
            return PromptInputs(ids, torch.zeros(len(ids), dtype=torch.int), {})
        if clip is None:
            raise ValueError("a prompt about a video needs its clip")
        token = getattr(self._processor, "video_token", None)
        # processors refuse such a text themselves, but in words about their own arguments
        if token is not None and token not in text:
            raise ModelError(_NO_VIDEO)
        # frames_indices are always passed: without them Qwen3-VL fails, and others assume 24 frames a second
        output: dict[str, Any] = self._processor(
            text=[text],
            videos=[[clip.frames]],
            video_metadata=[[clip.metadata()]],
            do_sample_frames=False,
            **({"do_resize": False} if sized and self._whole_cells(clip) else {}),
            return_tensors="pt",
        )
        ids = output["input_ids"][0]
        types = output["mm_token_type_ids"][0] if "mm_token_type_ids" in output else None
        vision = {key: torch.as_tensor(value) for key, value in output.items() if key not in _TEXT_KEYS}
        if not vision or self.count_visual_tokens(ids) == 0:
            raise ModelError(_NO_VIDEO)
        return PromptInputs(ids, types, vision)

    def _whole_cells(self, clip: Clip) -> bool:
        """A frame smaller than a cell is left to the processor to enlarge."""
        height, width = clip.frames.shape[-2:]
        return self.cell is not None and height % self.cell == 0 and width % self.cell == 0

    def count_visual_tokens(self, ids: Tensor) -> int:
        """How many placeholders of visual features stand in `ids`."""
        return int(torch.isin(ids, torch.tensor(self.visual_ids)).sum())

    def target_ids(self, prompt: Prompt, answer: str) -> Tensor:
        """Token ids of an answer, up to and with its first end-of-turn token (T,).

        The template's text behind the prompt is tokenised alone, so that a trained answer has the very tokens
        that generation would have to produce.

        Args:
            prompt: The question answered.
            answer: The answer.

        Raises:
            ModelError: The chat template leaves the answer out, or never ends it.
        """
        start, whole = self.render(prompt), self.render(prompt, answer)
        # some published templates (LLaVA-OneVision) put other white space before an answer than before a generated one
        begin = len(start) if whole.startswith(start) else whole.rfind(answer)
        ids = self._processor.tokenizer(whole[begin:], add_special_tokens=False)["input_ids"] if begin >= 0 else []
        end = next((position for position, token in enumerate(ids) if token in self.end_ids), None)
        if end is None:
            raise ModelError(
                f"the model's chat template does not end an answer with a stop token (ids {list(self.end_ids)})."
            )
        return torch.tensor(ids[: end + 1], dtype=torch.long)

    def decode(self, ids: Tensor) -> str:
        """Text of generated ids; special tokens and control characters, which could drive a terminal, are left out."""
        text: str = self._processor.tokenizer.decode(ids, skip_special_tokens=True)
        return "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C").strip()

    def save(self, folder: str) -> None:
        """Write processor, tokenizer and chat template."""
        self._processor.save_pretrained(folder)
