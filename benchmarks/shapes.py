"""Models of published dimensions with random weights, as folders that load like the published ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.families import build_family


def _fit_smolvlm(processor: Any) -> None:
    for part in (processor.image_processor, processor.video_processor):
        part.size = part.max_image_size = {"longest_edge": 512}
    processor.image_seq_len = 64


def _fit_qwen3_vl(processor: Any) -> None:
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size = 16
        part.size = {"shortest_edge": 4096, "longest_edge": 25165824}


def _fit_internvl(processor: Any) -> None:
    for part in (processor.image_processor, processor.video_processor):
        part.size = {"height": 448, "width": 448}
    processor.image_seq_length = 256


def _fit_llava_onevision(processor: Any) -> None:
    for part in (processor.image_processor, processor.video_processor):
        part.size = {"height": 384, "width": 384}
    processor.num_image_tokens = 729


@dataclass(frozen=True)
class Shape:
    """What config.json of a published model says of its dimensions.

    Args:
        family: Of the small models of the tests, whose tokenizer and processor it takes.
        text: Of the language model.
        vision: Of the vision tower.
        fit: Gives the processor the published sizes.
        whole: Of the whole model.
        dtype: Of its weights here.
    """

    family: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    fit: Callable[[Any], None]
    whole: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"


_ROWS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
_SIGLIP_BASE = {
    **dict(zip(_ROWS[:4], (768, 3072, 12, 12), strict=True)),
    **{"image_size": 512, "patch_size": 16},
}


def _text(*dimensions: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {**dict(zip(_ROWS, dimensions, strict=True)), "vocab_size": vocabulary, **more}


SHAPES: dict[str, Shape] = {
    "SmolVLM2-256M": Shape(
        "smolvlm",
        _text(576, 1536, 30, 9, 3, vocabulary=49280, head_dim=64),
        _SIGLIP_BASE,
        _fit_smolvlm,
        {"scale_factor": 4, "tie_word_embeddings": False},
        "float32",
    ),
    "SmolVLM2-500M": Shape(
        "smolvlm",
        _text(960, 2560, 32, 15, 5, vocabulary=49280, head_dim=64),
        _SIGLIP_BASE,
        _fit_smolvlm,
        {"scale_factor": 4, "tie_word_embeddings": False},
        "float32",
    ),
    "LLaVA-OneVision-0.5B": Shape(
        "llava_onevision",
        _text(896, 4864, 24, 14, 2, vocabulary=152000),
        {**dict(zip(_ROWS[:4], (1152, 4304, 26, 16), strict=True)), "image_size": 384, "patch_size": 14},
        _fit_llava_onevision,
        {"tie_word_embeddings": True},
    ),
    "InternVL3-1B": Shape(
        "internvl",
        _text(896, 4864, 24, 14, 2, vocabulary=151674),
        {
            **dict(zip(_ROWS[:4], (1024, 4096, 24, 16), strict=True)),
            **{"image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True},
        },
        _fit_internvl,
        {"image_seq_length": 256, "tie_word_embeddings": False},
    ),
    "Qwen3-VL-2B": Shape(
        "qwen3_vl",
        _text(
            *(2048, 6144, 28, 16, 8),
            vocabulary=151936,
            head_dim=128,
            rope_parameters={
                **{"rope_type": "default", "rope_theta": 5e6},
                **{"mrope_section": [24, 20, 20], "mrope_interleaved": True},
            },
        ),
        {
            **{"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16},
            **{"out_hidden_size": 2048, "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
        },
        _fit_qwen3_vl,
        {"tie_word_embeddings": True},
    ),
}


def write_shape(name: str, folder: Path, *, weights: bool = True) -> Path:
    """Write a model of published shape with its processor.

    Args:
        name: One of `SHAPES`.
        folder: Where to.
        weights: Whether to write any; random ones.

    Returns:
        The model's folder; the tokenizer is that of the small models, whose tokens are the first of the vocabulary.
    """
    shape = SHAPES[name]
    small = build_family(shape.family, folder / shape.family)
    processor, config = AutoProcessor.from_pretrained(small), AutoConfig.from_pretrained(small)
    shape.fit(processor)
    content = config.to_dict() | dict(shape.whole)
    narrow = {"initializer_range": 0.02}
    content["text_config"].pop("layer_types", None)  # of the small model's layers
    content["text_config"] |= {**shape.text, **narrow, "tie_word_embeddings": bool(shape.whole["tie_word_embeddings"])}
    content["vision_config"] |= {**shape.vision, **narrow}
    content["dtype"] = shape.dtype
    target = folder / name
    published = type(config).from_dict(content)
    if weights:
        torch.manual_seed(0)
        dtype = getattr(torch, shape.dtype)
        model: Any = AutoModelForImageTextToText.from_config(published, dtype=dtype)
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
        model.save_pretrained(target)
    else:
        published.save_pretrained(target)
    processor.save_pretrained(target)
    return target
