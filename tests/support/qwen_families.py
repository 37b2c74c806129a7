"""Recipes of families that are built like Qwen's: patches of a free frame size, positions in time, height and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tests.support.family_parts import (
    INIT_STD,
    PATCH,
    QWEN3_ROPE,
    Family,
    Size,
    qwen_ids,
    qwen_patches,
    qwen_processor,
    qwen_tokenizer,
    rope,
    text_config,
    token_id,
)
from tests.support.family_text import END, chatml, train_tokenizer
from transformers.models.muse_glimmer.image_processing_muse_glimmer import MuseGlimmerImageProcessor

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def _qwen3(model: str, text: dict[str, Any], **vision: Any) -> Callable[[Size], Family]:
    """A family with the vision tower and the processor of Qwen3-VL, by the beginning of its classes' names."""

    def make(size: Size) -> Family:
        tokenizer = qwen_tokenizer()
        config = getattr(hf, f"{model}Config")(
            text_config=text_config(tokenizer, size, head_dim=16, **text),
            vision_config={
                "depth": size.vision_layers,
                "hidden_size": size.vision_hidden,
                "intermediate_size": 2 * size.vision_hidden,
                "out_hidden_size": size.hidden,
                "num_heads": 2,
                "patch_size": PATCH,
                "num_position_embeddings": 16,
                "initializer_range": INIT_STD,
                **vision,
            },
            **qwen_ids(tokenizer),
        )
        videos = hf.Qwen3VLVideoProcessor(**qwen_patches(most_tokens=8 * size.most_tokens))
        processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, videos, size)
        return Family(getattr(hf, f"{model}ForConditionalGeneration"), config, processor, tokenizer)

    return make


# three layers with a running state to one of full attention, as published
LINEAR_TEXT: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": [*["linear_attention"] * 3, "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "rope_parameters": rope(partial_rotary_factor=0.5, mrope_section=[2, 1, 1], mrope_interleaved=True),
}


def _exaone4_5(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Exaone4_5_Config(
        # three layers with a window to one without; a prompt is much longer than the window
        text_config=text_config(
            tokenizer, size, model_type="exaone4", num_hidden_layers=4, sliding_window=8, sliding_window_pattern=4
        ),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "num_key_value_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
            "initializer_range": INIT_STD,
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
    )
    videos = hf.Qwen2VLVideoProcessor(**qwen_patches(most_tokens=size.most_tokens))
    processor = qwen_processor(hf.Exaone4_5_Processor, tokenizer, videos, size)
    return Family(hf.Exaone4_5_ForConditionalGeneration, config, processor, tokenizer)


def _hyperclovax(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.HyperCLOVAXVisionV2Config(
        text_config=text_config(tokenizer, size, model_type="hyperclovax", head_dim=16),
        vision_config={
            "model_type": "qwen2_5_vl",
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
            "initializer_range": INIT_STD,
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
    )
    videos = hf.Qwen2VLVideoProcessor(**qwen_patches(most_tokens=size.most_tokens))
    processor = qwen_processor(hf.HyperCLOVAXVisionV2Processor, tokenizer, videos, size)
    return Family(hf.HyperCLOVAXVisionV2ForConditionalGeneration, config, processor, tokenizer)


def _lfm3_vl(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Lfm3VlConfig(
        text_config=text_config(tokenizer, size, model_type="lfm2", layer_types=["conv", "full_attention"]),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "patch_size": PATCH,
            "initializer_range": INIT_STD,
        },
        projector_hidden_size=size.hidden,
        **qwen_ids(tokenizer),
    )
    videos = hf.Qwen3VLVideoProcessor(**qwen_patches(most_tokens=8 * size.most_tokens))
    processor = qwen_processor(hf.Lfm3VlProcessor, tokenizer, videos, size)
    return Family(hf.Lfm3VlForConditionalGeneration, config, processor, tokenizer)


def _muse_glimmer(size: Size) -> Family:
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tokenizer = train_tokenizer(["<|vision_start|>", "<|vision_end|>"], pad="<|pad|>", eos=END, named=named)
    config = hf.MuseGlimmerConfig(
        text_config=text_config(
            tokenizer,
            size,
            num_hidden_layers=4,
            head_dim=16,
            sliding_window=8,
            layer_types=[*["sliding_attention"] * 3, "full_attention"],
        ),
        vision_config={
            "patch_size": PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "max_position_embeddings": 64,
            "initializer_range": INIT_STD,
        },
        image_token_id=token_id(tokenizer, "<|image|>"),
        video_token_id=token_id(tokenizer, "<|video|>"),
        out_hidden_size=4 * size.vision_hidden,
        projector_hidden_size=size.hidden,
    )
    processor = hf.MuseGlimmerProcessor(
        MuseGlimmerImageProcessor(patch_size=PATCH),
        hf.MuseGlimmerVideoProcessor(patch_size=PATCH),
        tokenizer,
        chat_template=chatml(video="<|video|>", image="<|image|>"),
    )
    return Family(hf.MuseGlimmerForConditionalGeneration, config, processor, tokenizer)


RECIPES: dict[str, Callable[[Size], Family]] = {
    "cosmos3_omni": _qwen3("Cosmos3Omni", {"rope_parameters": QWEN3_ROPE}, deepstack_visual_indexes=[0, 1]),
    "exaone4_5": _exaone4_5,
    "hyperclovax_vision_v2": _hyperclovax,
    "lfm3_vl": _lfm3_vl,
    "muse_glimmer": _muse_glimmer,
    "qwen3_5": _qwen3("Qwen3_5", LINEAR_TEXT),
    "qwen3_5_moe": _qwen3("Qwen3_5Moe", {**LINEAR_TEXT, **_EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3_vl_moe": _qwen3(
        "Qwen3VLMoe",
        {"rope_parameters": QWEN3_ROPE, "num_local_experts": 4, **_EXPERTS},
        deepstack_visual_indexes=[0, 1],
    ),
}
