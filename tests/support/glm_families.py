"""Recipes of the GLM-V families and of those whose clips go in as tubes of patches like theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tests.support.family_parts import INIT_STD, PATCH, TOKEN, Family, Size, rope, text_config, token_id
from tests.support.family_text import END, chatml, train_tokenizer
from transformers.models.ernie4_5_vl_moe.image_processing_ernie4_5_vl_moe import Ernie4_5_VLMoeImageProcessor
from transformers.models.glm4v.image_processing_glm4v import Glm4vImageProcessor
from transformers.models.glm46v.image_processing_glm46v import Glm46VImageProcessor
from transformers.models.glmga.image_processing_glmga import GlmgaImageProcessor

_MARKS = {
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
}


def glm_ids(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, int]:
    return {name: token_id(tokenizer, token) for name, token in _MARKS.items()}


def glm_tokenizer() -> hf.PreTrainedTokenizerFast:
    return train_tokenizer(list(_MARKS.values()), pad="<|endoftext|>", eos=END)


GLM_TEMPLATE = chatml(
    video="<|begin_of_video|><|video|><|end_of_video|>", image="<|begin_of_image|><|image|><|end_of_image|>"
)


def patches(size: Size) -> dict[str, Any]:
    # the bounds are of a whole clip, in pixels of all frames
    bounds = {"shortest_edge": 8 * TOKEN, "longest_edge": 16 * size.most_tokens * TOKEN}
    return {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "size": bounds}


def _glm(
    model: str, processor: Any, videos: Any, images: Any, named: str | None = None, **text: Any
) -> Callable[[Size], Family]:
    """A family by the beginning of its model's class, and of its configuration's where that is another."""

    def make(size: Size) -> Family:
        tokenizer = glm_tokenizer()
        config = getattr(hf, f"{named or model}Config")(
            text_config=text_config(tokenizer, size, head_dim=16, **text),
            vision_config={
                "depth": size.vision_layers,
                "hidden_size": size.vision_hidden,
                "intermediate_size": 2 * size.vision_hidden,
                "out_hidden_size": size.hidden,
                "num_heads": 2,
                "patch_size": PATCH,
                "image_size": size.image,
                "initializer_range": INIT_STD,
            },
            **glm_ids(tokenizer),
        )
        parts = images(**patches(size)), tokenizer, videos(**patches(size))
        made = processor(*parts, chat_template=GLM_TEMPLATE)
        return Family(getattr(hf, f"{model}ForConditionalGeneration"), config, made, tokenizer)

    return make


_DENSE = {"rope_parameters": rope(mrope_section=[4, 2, 2], partial_rotary_factor=1.0)}
_SPARSE = {
    "rope_parameters": rope(mrope_section=[2, 1, 1], partial_rotary_factor=0.5),
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}


def _ernie(size: Size) -> Family:
    named = {
        "image_token": "<|IMAGE_PLACEHOLDER|>",
        "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>",
        "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>",
        "video_end_token": "<|VIDEO_END|>",
    }
    tokenizer = train_tokenizer([], pad="<pad>", eos=END, named=named)
    config = hf.Ernie4_5_VLMoeConfig(
        text_config=text_config(
            tokenizer,
            size,
            rope_parameters=rope(mrope_section=[3, 3, 2]),
            num_hidden_layers=3,
            mlp_layer_types=["dense", "sparse", "sparse"],
            moe_intermediate_size=[32, 16],
            moe_num_experts=4,
            moe_num_shared_experts=1,
            moe_k=2,
        ),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "initializer_range": INIT_STD,
        },
        **{f"{name}_id": token_id(tokenizer, token) for name, token in named.items()},
    )
    bounds = {"shortest_edge": 4 * TOKEN, "longest_edge": 8 * size.most_tokens * TOKEN}
    processor = hf.Ernie4_5_VLMoeProcessor(
        Ernie4_5_VLMoeImageProcessor(patch_size=PATCH, merge_size=2, size=bounds),
        tokenizer,
        # what it would draw, the time of each frame, needs a font that is fetched from the hub
        hf.Ernie4_5_VLMoeVideoProcessor(
            patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=bounds, draw_on_frames=False
        ),
        chat_template=chatml(
            video="<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>",
            image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        ),
    )
    return Family(hf.Ernie4_5_VLMoeForConditionalGeneration, config, processor, tokenizer)


RECIPES: dict[str, Callable[[Size], Family]] = {
    "glm4v": _glm("Glm4v", hf.Glm4vProcessor, hf.Glm4vVideoProcessor, Glm4vImageProcessor, **_DENSE),
    "glmga": _glm("Glm46V", hf.Glm46VProcessor, hf.GlmgaVideoProcessor, GlmgaImageProcessor, named="Glmga", **_DENSE),
    "glm46v": _glm("Glm46V", hf.Glm46VProcessor, hf.Glm46VVideoProcessor, Glm46VImageProcessor, **_DENSE),
    "glm4v_moe": _glm("Glm4vMoe", hf.Glm4vProcessor, hf.Glm4vVideoProcessor, Glm4vImageProcessor, **_SPARSE),
    "ernie4_5_vl_moe": _ernie,
}
