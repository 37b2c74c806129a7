"""Tiny random models of the six supported families: real transformers classes and processors, built offline.

A folder from `build_family` loads like any published checkpoint. A clip of eight small frames costs at most
about 150 tokens, and the weights are drawn wide (std 0.2), so that video and text move the logits far above
rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from tests.support import glm_families, llava_families, newest_families, qwen_families
from tests.support.family_parts import (
    INIT_STD,
    PATCH,
    QWEN3_ROPE,
    TINY,
    Family,
    Size,
    qwen_ids,
    qwen_patches,
    qwen_processor,
    qwen_tokenizer,
    rope,
    sections,
    text_config,
    token_id,
    vit,
)
from tests.support.family_text import END, SMOLVLM_TEMPLATE, START, chatml, train_tokenizer
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor

# those that all tests of families are run for; the others have their own in tests/vlm/test_model_types.py
FAMILIES: tuple[str, ...] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "llava_onevision", "internvl")


def build_family(name: str, folder: Path, seed: int = 0, size: Size = TINY) -> Path:
    """Writes a tiny random model of one family with its processor and generation config.

    Args:
        name: One of `RECIPES`.
        folder: Where to save; created when missing.
        seed: Seed of the weights; the global random state is left as it was.
        size: Of the model.

    Returns:
        `folder`, loadable by AutoConfig, AutoProcessor and AutoModelForImageTextToText.
    """
    family = RECIPES[name](size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.model_class(family.config)
    model.generation_config = hf.GenerationConfig(
        bos_token_id=token_id(family.tokenizer, START),
        eos_token_id=family.tokenizer.eos_token_id,
        pad_token_id=family.tokenizer.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    family.processor.save_pretrained(folder)
    return folder


def _qwen2_vl(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen2VLConfig(
        text_config=text_config(tokenizer, size, rope_parameters=rope(mrope_section=sections(size))),
        vision_config={
            "depth": size.vision_layers,
            "embed_dim": size.vision_hidden,
            "hidden_size": size.hidden,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": PATCH,
            "initializer_range": INIT_STD,
        },
        **qwen_ids(tokenizer),
    )
    # Bounds of one frame; two frames share their tokens.
    videos = hf.Qwen2VLVideoProcessor(**qwen_patches(most_tokens=size.most_tokens))
    return Family(
        hf.Qwen2VLForConditionalGeneration,
        config,
        qwen_processor(hf.Qwen2VLProcessor, tokenizer, videos, size),
        tokenizer,
    )


def _qwen2_5_vl(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen2_5_VLConfig(
        text_config=text_config(tokenizer, size, rope_parameters=rope(mrope_section=sections(size))),
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
        **qwen_ids(tokenizer),
    )
    videos = hf.Qwen2VLVideoProcessor(**qwen_patches(most_tokens=size.most_tokens))
    processor = qwen_processor(hf.Qwen2_5_VLProcessor, tokenizer, videos, size)
    return Family(hf.Qwen2_5_VLForConditionalGeneration, config, processor, tokenizer)


def _qwen3_vl(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen3VLConfig(
        text_config=text_config(tokenizer, size, head_dim=16, rope_parameters=QWEN3_ROPE),
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
        **qwen_ids(tokenizer),
    )
    # Unlike its elders, this family bounds the sum over all frames.
    videos = hf.Qwen3VLVideoProcessor(**qwen_patches(most_tokens=8 * size.most_tokens))
    processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, videos, size)
    return Family(hf.Qwen3VLForConditionalGeneration, config, processor, tokenizer)


def _smolvlm(size: Size) -> Family:
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = train_tokenizer([], pad=END, eos="<end_of_utterance>", named=named)
    config = hf.SmolVLMConfig(
        text_config=text_config(tokenizer, size, model_type="llama"),
        vision_config=vit(size),
        scale_factor=size.shuffle,
        image_token_id=token_id(tokenizer, "<image>"),
    )
    frame = {"longest_edge": size.image}
    processor = hf.SmolVLMProcessor(
        SmolVLMImageProcessor(size=frame, max_image_size=frame, do_image_splitting=False),
        tokenizer,
        hf.SmolVLMVideoProcessor(size={"longest_edge": 2 * size.image}, max_image_size=frame, fps=1, num_frames=8),
        image_seq_len=size.frame_tokens,
        chat_template=SMOLVLM_TEMPLATE,
    )
    return Family(hf.SmolVLMForConditionalGeneration, config, processor, tokenizer)


def _llava_onevision(size: Size) -> Family:
    tokenizer = train_tokenizer(["<image>", "<video>"], pad="<|endoftext|>", eos=END)
    tiles = [[size.image, size.image], [size.image, 2 * size.image]]
    config = hf.LlavaOnevisionConfig(
        text_config=text_config(tokenizer, size, model_type="qwen2"),
        vision_config=vit(size, model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
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
    return Family(hf.LlavaOnevisionForConditionalGeneration, config, processor, tokenizer)


def _internvl(size: Size) -> Family:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = train_tokenizer([], pad="<|endoftext|>", eos=END, named=named)
    config = hf.InternVLConfig(
        text_config=text_config(tokenizer, size, model_type="qwen2"),
        vision_config=vit(size),
        image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
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
    return Family(hf.InternVLForConditionalGeneration, config, processor, tokenizer)


RECIPES: dict[str, Callable[[Size], Family]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    **qwen_families.RECIPES,
    **glm_families.RECIPES,
    **llava_families.RECIPES,
    **newest_families.RECIPES,
}
