"""Tiny models as the package loads them, clips to feed them, and plain transformers passes to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from rbft.video.clip import Clip
from rbft.vlm.batch import PromptInputs
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import Tuning

FPS = 25.0


@dataclass(frozen=True)
class Loaded:
    """A model with its processor, through the package's own loading."""

    processor: ClipProcessor
    vlm: VLM

    def inputs(self, question: str, clip: Clip) -> PromptInputs:
        return self.processor.prompt_inputs(Prompt(question), clip)

    def target(self, question: str, answer: str) -> Tensor:
        return self.processor.target_ids(Prompt(question), answer)


def load(folder: Path, tuning: Tuning | None = None) -> Loaded:
    processor = ClipProcessor(str(folder))
    model: Any = load_model(str(folder), None, "float32", None)
    if tuning is not None:
        model = tuning.apply(model)
    return Loaded(processor, VLM(model, processor.pad_id, processor.end_ids).eval())


def make_clip(seed: int, frames: int = 8, gap: int = 5) -> Clip:
    """A clip of smooth random frames, one in `gap` of a video of 25 frames a second."""
    # coarse, so that resizing does not average the content away
    coarse = torch.rand((frames, 3, 3, 4), generator=torch.Generator().manual_seed(seed))
    pixels = (torch.nn.functional.interpolate(coarse, size=(48, 64)) * 255).to(torch.uint8)
    indices = tuple(gap * i for i in range(frames))
    return Clip(
        frames=pixels,
        timestamps=tuple(i / FPS for i in indices),
        indices=indices,
        fps=FPS,
        duration=frames * gap / FPS,
        total_num_frames=frames * gap,
        path=f"clip{seed}.mp4",
    )


class Plain:
    """Full forward passes over one row with its pixels: transformers alone, nothing of the package."""

    def __init__(self, folder: Path) -> None:
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, question: str, clip: Clip) -> Any:
        turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}
        template = self.processor.chat_template
        text = self.processor.apply_chat_template(
            [turn], tokenize=False, add_generation_prompt=True, chat_template=template
        )
        # asked for where a model takes them; most processors give them anyhow
        wanted = "mm_token_type_ids" in signature(self.model.forward).parameters
        modalities = {"return_mm_token_type_ids": True} if wanted else {}
        output = self.processor(
            text=[text],
            videos=[[clip.frames]],
            video_metadata=[[clip.metadata()]],
            do_sample_frames=False,
            return_metadata=True,
            return_tensors="pt",
            **modalities,
        )
        output.pop("video_metadata", None)
        return output

    @torch.no_grad()
    def _logits(self, question: str, clip: Clip, after: Tensor) -> Tensor:
        """Log-probabilities at the prompt's last token and at each of `after` (1 + T, V)."""
        inputs = dict(self.prompt(question, clip))
        length = inputs["input_ids"].shape[1]
        tails = {"input_ids": after, "attention_mask": torch.ones_like(after)}
        for key, value in inputs.items():
            # whatever else is given for each token of the prompt says of text that it is text
            if isinstance(value, Tensor) and value.shape == (1, length):
                tail = tails.get(key, torch.zeros_like(after)).to(value.dtype)
                inputs[key] = torch.cat([value, tail.unsqueeze(0)], dim=1)
        if hasattr(self.model.model, "rope_deltas"):
            self.model.model.rope_deltas = None  # left by the call before
        logits: Tensor = self.model(**inputs).logits[0, length - 1 :]
        return logits.log_softmax(-1)

    def log_probs(self, question: str, clip: Clip, target: Tensor) -> Tensor:
        """Log-probability of each target token (T,)."""
        return self._logits(question, clip, target)[:-1].gather(1, target.unsqueeze(1)).squeeze(1)

    def next_log_probs(self, question: str, clip: Clip, written: Tensor) -> Tensor:
        """Log-probability of every token after what was written (V,)."""
        return self._logits(question, clip, written)[-1]

    def scores(self, question: str, clips: Sequence[Clip], targets: Sequence[Tensor]) -> Tensor:
        """Log-likelihood of every target after every clip (B, C), one full pass for each."""
        return torch.stack(
            [torch.stack([self.log_probs(question, clip, target).sum() for target in targets]) for clip in clips]
        )
