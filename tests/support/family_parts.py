"""What the tiny models of all families are made of: sizes, configurations, and parts of processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers as hf
from tests.support.family_text import END, START, chatml, train_tokenizer
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

PATCH = 8  # pixels; two by two patches make one visual token in every family
TOKEN = (2 * PATCH) ** 2  # pixels of one visual token
INIT_STD = 0.2


@dataclass(frozen=True)
class Size:
    """Sizes of a model.

    Args:
        hidden: Width of the language model.
        layers: Of the language model.
        vision_hidden: Width of the vision tower.
        vision_layers: Of the vision tower.
        image: Frame side in pixels in the families that resize every frame to one square.
        most_tokens: Visual tokens of a frame at most in the families with a free frame size.
        shuffle: Patches that make one token, along each side, where a family leaves it open (SmolVLM).
    """

    hidden: int = 64
    layers: int = 2
    vision_hidden: int = 32
    vision_layers: int = 2
    image: int = 32
    most_tokens: int = 8
    shuffle: int = 2

    @property
    def frame_tokens(self) -> int:
        """Visual tokens of a square frame."""
        return (self.image // (PATCH * self.shuffle)) ** 2


TINY = Size()


@dataclass(frozen=True)
class Family:
    # Any: the classes of transformers take their arguments through **kwargs and share no typed constructor.
    model_class: Any
    config: hf.PreTrainedConfig
    processor: hf.ProcessorMixin
    tokenizer: hf.PreTrainedTokenizerFast


HEADS = 4  # of the language model


def qwen_tokenizer() -> hf.PreTrainedTokenizerFast:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return train_tokenizer(vision, pad="<|endoftext|>", eos=END)


def qwen_ids(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": token_id(tokenizer, "<|image_pad|>"),
        "video_token_id": token_id(tokenizer, "<|video_pad|>"),
        "vision_start_token_id": token_id(tokenizer, "<|vision_start|>"),
        "vision_end_token_id": token_id(tokenizer, "<|vision_end|>"),
    }


def qwen_patches(most_tokens: int) -> dict[str, Any]:
    bounds = {"shortest_edge": 4 * TOKEN, "longest_edge": most_tokens * TOKEN}
    return {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "size": bounds}


def qwen_processor(
    processor_class: Any, tokenizer: hf.PreTrainedTokenizerFast, videos: Any, size: Size
) -> hf.ProcessorMixin:
    template = chatml(
        video="<|vision_start|><|video_pad|><|vision_end|>",
        image="<|vision_start|><|image_pad|><|vision_end|>",
    )
    images = Qwen2VLImageProcessor(**qwen_patches(most_tokens=size.most_tokens))
    return processor_class(images, tokenizer, videos, chat_template=template)


def vit(size: Size, **extra: Any) -> dict[str, Any]:
    return {
        "hidden_size": size.vision_hidden,
        "intermediate_size": 2 * size.vision_hidden,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": 2,
        "image_size": size.image,
        "patch_size": PATCH,
        "initializer_range": INIT_STD,
        **extra,
    }


def text_config(tokenizer: hf.PreTrainedTokenizerFast, size: Size, **extra: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": 2 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": INIT_STD,
        "bos_token_id": token_id(tokenizer, START),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **extra,
    }


def sections(size: Size) -> list[int]:
    """Half of a head's size, shared by time, height and width."""
    half = size.hidden // HEADS // 2
    return [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]


def rope(**extra: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **extra}


def token_id(tokenizer: hf.PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.get_vocab()[token]


QWEN3_ROPE = rope(mrope_section=[4, 2, 2], mrope_interleaved=True)
