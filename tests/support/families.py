"""Tiny random models of the six supported families: real transformers classes and processors, built offline.

A folder from `build_family` loads like any published checkpoint. A clip of eight small frames costs at most
about 150 tokens, and the weights are drawn wide (std 0.2), so that video and text move the logits far above
rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tests.support.family_text import END, SMOLVLM_TEMPLATE, START, chatml, train_tokenizer
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor

FAMILIES: tuple[str, ...] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "llava_onevision", "internvl")

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
IMAGE, FRAME_TOKENS, HIDDEN = TINY.image, TINY.frame_tokens, TINY.hidden


def build_family(name: str, folder: Path, seed: int = 0, size: Size = TINY) -> Path:
    """Writes a tiny random model of one family with its processor and generation config.

    Args:
        name: One of `FAMILIES`.
        folder: Where to save; created when missing.
        seed: Seed of the weights; the global random state is left as it was.
        size: Of the model.

    Returns:
        `folder`, loadable by AutoConfig, AutoProcessor and AutoModelForImageTextToText.
    """
    family = _RECIPES[name](size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.model_class(family.config)
    model.generation_config = hf.GenerationConfig(
        bos_token_id=_id(family.tokenizer, START),
        eos_token_id=family.tokenizer.eos_token_id,
        pad_token_id=family.tokenizer.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    family.processor.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class _Family:
    # Any: the classes of transformers take their arguments through **kwargs and share no typed constructor.
    model_class: Any
    config: hf.PreTrainedConfig
    processor: hf.ProcessorMixin
    tokenizer: hf.PreTrainedTokenizerFast


def _qwen2_vl(size: Size) -> _Family:
    tokenizer = _qwen_tokenizer()
    config = hf.Qwen2VLConfig(
        text_config=_text_config(tokenizer, size, rope_parameters=_rope(mrope_section=_sections(size))),
        vision_config={
            "depth": size.vision_layers,
            "embed_dim": size.vision_hidden,
            "hidden_size": size.hidden,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": PATCH,
            "initializer_range": INIT_STD,
        },
        **_qwen_ids(tokenizer),
    )
    # Bounds of one frame; two frames share their tokens.
    videos = hf.Qwen2VLVideoProcessor(**_qwen_patches(most_tokens=size.most_tokens))
    return _Family(
        hf.Qwen2VLForConditionalGeneration, config, _qwen(hf.Qwen2VLProcessor, tokenizer, videos, size), tokenizer
    )


def _qwen2_5_vl(size: Size) -> _Family:
    tokenizer = _qwen_tokenizer()
    config = hf.Qwen2_5_VLConfig(
        text_config=_text_config(tokenizer, size, rope_parameters=_rope(mrope_section=_sections(size))),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,  # two by two tokens: smaller than a frame, so that windows matter
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "initializer_range": INIT_STD,
        },
        **_qwen_ids(tokenizer),
    )
    videos = hf.Qwen2VLVideoProcessor(**_qwen_patches(most_tokens=size.most_tokens))
    processor = _qwen(hf.Qwen2_5_VLProcessor, tokenizer, videos, size)
    return _Family(hf.Qwen2_5_VLForConditionalGeneration, config, processor, tokenizer)


def _qwen3_vl(size: Size) -> _Family:
    tokenizer = _qwen_tokenizer()
    rope = _rope(mrope_section=[4, 2, 2], mrope_interleaved=True)
    config = hf.Qwen3VLConfig(
        text_config=_text_config(tokenizer, size, head_dim=16, rope_parameters=rope),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": INIT_STD,
        },
        **_qwen_ids(tokenizer),
    )
    # Unlike its elders, this family bounds the sum over all frames.
    videos = hf.Qwen3VLVideoProcessor(**_qwen_patches(most_tokens=8 * size.most_tokens))
    processor = _qwen(hf.Qwen3VLProcessor, tokenizer, videos, size)
    return _Family(hf.Qwen3VLForConditionalGeneration, config, processor, tokenizer)


def _smolvlm(size: Size) -> _Family:
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = train_tokenizer([], pad=END, eos="<end_of_utterance>", named=named)
    config = hf.SmolVLMConfig(
        text_config=_text_config(tokenizer, size, model_type="llama"),
        vision_config=_vit(size),
        scale_factor=size.shuffle,
        image_token_id=_id(tokenizer, "<image>"),
    )
    frame = {"longest_edge": size.image}
    processor = hf.SmolVLMProcessor(
        SmolVLMImageProcessor(size=frame, max_image_size=frame, do_image_splitting=False),
        tokenizer,
        hf.SmolVLMVideoProcessor(size={"longest_edge": 2 * size.image}, max_image_size=frame, fps=1, num_frames=8),
        image_seq_len=size.frame_tokens,
        chat_template=SMOLVLM_TEMPLATE,
    )
    return _Family(hf.SmolVLMForConditionalGeneration, config, processor, tokenizer)


def _llava_onevision(size: Size) -> _Family:
    tokenizer = train_tokenizer(["<image>", "<video>"], pad="<|endoftext|>", eos=END)
    tiles = [[size.image, size.image], [size.image, 2 * size.image]]
    config = hf.LlavaOnevisionConfig(
        text_config=_text_config(tokenizer, size, model_type="qwen2"),
        vision_config=_vit(size, model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=tiles,
    )
    frame = {"height": size.image, "width": size.image}
    processor = hf.LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=frame, image_grid_pinpoints=tiles),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=frame),
        num_image_tokens=(size.image // PATCH) ** 2,  # before the pooling that every frame of a video goes through
        vision_feature_select_strategy="full",
        chat_template=chatml(video="<video>\n", image="<image>\n"),
    )
    return _Family(hf.LlavaOnevisionForConditionalGeneration, config, processor, tokenizer)


def _internvl(size: Size) -> _Family:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = train_tokenizer([], pad="<|endoftext|>", eos=END, named=named)
    config = hf.InternVLConfig(
        text_config=_text_config(tokenizer, size, model_type="qwen2"),
        vision_config=_vit(size),
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=size.frame_tokens,
        tie_word_embeddings=False,
    )
    frame = {"height": size.image, "width": size.image}
    processor = hf.InternVLProcessor(
        GotOcr2ImageProcessor(size=frame, max_patches=2),
        tokenizer,
        hf.InternVLVideoProcessor(size=frame),
        image_seq_length=size.frame_tokens,
        chat_template=chatml(video="<video>\n", image="<IMG_CONTEXT>\n"),
    )
    return _Family(hf.InternVLForConditionalGeneration, config, processor, tokenizer)


_RECIPES: dict[str, Callable[[Size], _Family]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
}


_HEADS = 4  # of the language model


def _qwen_tokenizer() -> hf.PreTrainedTokenizerFast:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return train_tokenizer(vision, pad="<|endoftext|>", eos=END)


def _qwen_ids(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": _id(tokenizer, "<|image_pad|>"),
        "video_token_id": _id(tokenizer, "<|video_pad|>"),
        "vision_start_token_id": _id(tokenizer, "<|vision_start|>"),
        "vision_end_token_id": _id(tokenizer, "<|vision_end|>"),
    }


def _qwen_patches(most_tokens: int) -> dict[str, Any]:
    bounds = {"shortest_edge": 4 * TOKEN, "longest_edge": most_tokens * TOKEN}
    return {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "size": bounds}


def _qwen(processor_class: Any, tokenizer: hf.PreTrainedTokenizerFast, videos: Any, size: Size) -> hf.ProcessorMixin:
    template = chatml(
        video="<|vision_start|><|video_pad|><|vision_end|>",
        image="<|vision_start|><|image_pad|><|vision_end|>",
    )
    images = Qwen2VLImageProcessor(**_qwen_patches(most_tokens=size.most_tokens))
    return processor_class(images, tokenizer, videos, chat_template=template)


def _vit(size: Size, **extra: Any) -> dict[str, Any]:
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


def _text_config(tokenizer: hf.PreTrainedTokenizerFast, size: Size, **extra: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": 2 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": INIT_STD,
        "bos_token_id": _id(tokenizer, START),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **extra,
    }


def _sections(size: Size) -> list[int]:
    """Half of a head's size, shared by time, height and width."""
    half = size.hidden // _HEADS // 2
    return [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]


def _rope(**extra: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **extra}


def _id(tokenizer: hf.PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.get_vocab()[token]
