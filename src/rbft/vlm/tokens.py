"""The tokens of a prompt as the model's own processor makes them, about a clip that need not be processed again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rbft.errors import ModelError
from rbft.vlm.batch import PromptInputs

# not fed: rows are padded here, and all families but those of BERT's kind take the types of modalities instead
_UNUSED = {"attention_mask", "token_type_ids", "video_metadata"}
_UNKNOWN = "the model's processor cannot be used:"


class TokenMaker:
    """Makes token ids of rendered prompts, with all that a processor gives for each token.

    Args:
        processor: The model's.
        modalities: Whether the model takes the modality of each token (`mm_token_type_ids`).
    """

    def __init__(self, processor: Any, modalities: bool = False) -> None:
        self._processor = processor
        self._modalities = modalities
        # what there is without a picture is about tokens; the rest of an output is about pixels
        given = processor(text=["a"], return_tensors="pt")
        self.names: frozenset[str] = frozenset({*given, *_UNUSED, "mm_token_type_ids"})
        self._compared = False

    def __call__(self, text: str, clip: str | None = None) -> PromptInputs:
        """Tokens of a text.

        Args:
            text: A rendered conversation.
            clip: What stands for its clip, from `process`; None for a conversation without one.
        """
        if clip is None:
            return self._of(self._processor(text=[text], return_tensors="pt", **self._options(text)))
        # all that the processor does to text, after a step for videos that is done already
        done = copy.copy(self._processor)
        blank = torch.zeros((1, 3, 2, 2), dtype=torch.uint8)
        # pixels that stand for none, because some processors move them about
        done._process_videos = lambda *_, **__: ({"pixel_values_videos": blank.unsqueeze(0)}, [clip])
        return self._of(done(text=[text], videos=[[blank]], return_tensors="pt", **self._options(text)))

    def process(self, text: str, frames: Tensor, **settings: Any) -> PromptInputs:
        """Tokens of a text about a clip, what the vision tower needs of the clip, and what stands for it in text.

        Args:
            text: A rendered conversation with a place for a clip.
            frames: frames of the clip (T, C, H, W).
            settings: settings of the processor.

        Raises:
            ModelError: Another question about the same clip could not be asked without processing it again.
        """
        stands_for: list[str] = []

        def watched(*args: Any, **kwargs: Any) -> Any:
            pixels, texts = self._processor._process_videos(*args, **kwargs)
            stands_for.extend(texts)
            return pixels, texts

        watching = copy.copy(self._processor)
        watching._process_videos = watched
        # some processors write times into text, and do not ask their own part for videos for them
        options = {"return_metadata": True, "return_tensors": "pt", **settings, **self._options(text)}
        output = watching(text=[text], videos=[[frames]], **options)
        tokens = self._of(output)
        if len(stands_for) != 1:
            raise ModelError(f"{_UNKNOWN} it does not say what stands for a clip in text.")
        if not self._compared:
            again = self(text, stands_for[0])
            if not _same(again, tokens):
                raise ModelError(f"{_UNKNOWN} asked about a clip once more it gives other tokens.")
            self._compared = True
        vision = {key: torch.as_tensor(value) for key, value in output.items() if key not in self.names}
        return replace(tokens, vision=vision, text=stands_for[0])

    def plain(self, text: str, frames: Tensor, **settings: Any) -> dict[str, Tensor]:
        """Everything that the processor gives for a text about a clip, as it is fed to transformers alone.

        Args:
            text: A rendered conversation.
            frames: frames of the clip (T, C, H, W).
            settings: settings of the processor.
        """
        options = {"return_metadata": True, "return_tensors": "pt", **settings, **self._options(text)}
        output = self._processor(text=[text], videos=[[frames]], **options)
        return {name: torch.as_tensor(value) for name, value in output.items() if name != "video_metadata"}

    def _options(self, text: str) -> dict[str, Any]:
        """Arguments under which a text gets one token that begins it, where the model wants one, and all it wants else.

        A chat template may write the token that begins a text, and a tokenizer may put it there, too. Modalities have
        to be asked for where a model needs them and its processor does not say so (Cosmos 3 Edge).
        """
        begin = getattr(self._processor.tokenizer, "bos_token", None)
        options: dict[str, Any] = {"add_special_tokens": False} if begin and text.startswith(begin) else {}
        if self._modalities and getattr(self._processor, "return_mm_token_type_ids", None) is False:
            options["return_mm_token_type_ids"] = True
        return options

    def _of(self, output: Mapping[str, Any]) -> PromptInputs:
        """What of a processor's output is about tokens."""
        each = {
            name: torch.as_tensor(value)[0]
            for name, value in output.items()
            if name in self.names and name not in _UNUSED
        }
        return PromptInputs(each.pop("input_ids"), each.pop("mm_token_type_ids", None), {}, extras=each)


def _same(first: PromptInputs, other: PromptInputs) -> bool:
    if not torch.equal(first.ids, other.ids) or (first.types is None) != (other.types is None):
        return False
    if first.types is not None and other.types is not None and not torch.equal(first.types, other.types):
        return False
    return first.extras.keys() == other.extras.keys() and all(
        torch.equal(value, other.extras[name]) for name, value in first.extras.items()
    )
