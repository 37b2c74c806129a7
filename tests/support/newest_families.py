"""Recipes of the newest types: indexed, latent and linear attention, streams of residuals, towers with experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tests.support.family_parts import (
    INIT_STD,
    PATCH,
    TOKEN,
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
from tests.support.glm_families import GLM_TEMPLATE, glm_ids, glm_tokenizer
from tests.support.qwen_families import LINEAR_TEXT
from transformers.models.cohere_compass.image_processing_cohere_compass import CohereCompassImageProcessor
from transformers.models.cosmos3_edge.image_processing_cosmos3_edge import Cosmos3EdgeImageProcessor
from transformers.models.dots3_note.feature_extraction_dots3_note import Dots3NoteFeatureExtractor
from transformers.models.glm5_next.image_processing_glm5_next import Glm5NextImageProcessor
from transformers.models.kimi_k25.image_processing_kimi_k25 import Kimi_K25ImageProcessor
from transformers.models.minimax_m3_vl.image_processing_minimax_m3_vl import MiniMaxM3VLImageProcessor
from transformers.models.muse_glimmer.image_processing_muse_glimmer import MuseGlimmerImageProcessor
from transformers.models.muse_spark.feature_extraction_muse_spark import MuseSparkFeatureExtractor
from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3ImageProcessor,
)
from transformers.models.nemotron_h_omni.video_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3VideoProcessor,
)
from transformers.models.parakeet.feature_extraction_parakeet import ParakeetFeatureExtractor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

# keys and values from a low rank, as in DeepSeek's
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def _cohere_compass(size: Size) -> Family:
    named = ["<|VISION_START|>", "<|VISION_END|>", "<|IMAGE_PAD|>", "<|VIDEO_PAD|>"]
    tokenizer = train_tokenizer(named, pad="<|endoftext|>", eos=END)
    start, end, image, video = named
    config = hf.CohereCompassConfig(
        text_config=text_config(
            tokenizer,
            size,
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=8,
            rope_parameters={
                "sliding_attention": rope(mrope_section=[4, 2, 2]),
                "full_attention": None,
            },
        ),
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
        image_token_id=token_id(tokenizer, image),
        video_token_id=token_id(tokenizer, video),
        vision_start_token_id=token_id(tokenizer, start),
        vision_end_token_id=token_id(tokenizer, end),
    )
    processor = hf.CohereCompassProcessor(
        CohereCompassImageProcessor(**qwen_patches(most_tokens=size.most_tokens)),
        tokenizer,
        hf.CohereCompassVideoProcessor(**qwen_patches(most_tokens=8 * size.most_tokens)),
        chat_template=chatml(video=f"{start}{video}{end}", image=f"{start}{image}{end}"),
    )
    return Family(hf.CohereCompassForConditionalGeneration, config, processor, tokenizer)


def _cosmos3_edge(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Cosmos3EdgeConfig(
        text_config=text_config(tokenizer, size, head_dim=16, rope_parameters=rope(mrope_section=[4, 2, 2])),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": 2,
            "patch_size": PATCH,
            "num_patches": 16,
        },
        projector_hidden_size=size.hidden,
        **qwen_ids(tokenizer),
    )
    shape = {**qwen_patches(most_tokens=8 * size.most_tokens), "temporal_patch_size": 1}
    processor = hf.Cosmos3EdgeProcessor(
        Cosmos3EdgeImageProcessor(**shape),
        tokenizer,
        hf.Cosmos3EdgeVideoProcessor(**shape),
        chat_template=chatml(
            video="<|vision_start|><|video_pad|><|vision_end|>", image="<|vision_start|><|image_pad|><|vision_end|>"
        ),
    )
    return Family(hf.Cosmos3EdgeForConditionalGeneration, config, processor, tokenizer)


def _dots3_note(size: Size) -> Family:
    tokenizer = train_tokenizer(["<|imgpad|>", "<|video_pad|>", "<|audio_comp_pad|>"], pad="<|endoftext|>", eos=END)
    config = hf.Dots3NoteConfig(
        text_config=text_config(
            tokenizer,
            size,
            **_LATENT,
            num_hidden_layers=4,
            qk_rope_head_dim=8,
            head_dim=16,
            n_shared_experts=1,
            shared_experts_intermediate_size=32,
            # fewer than the tokens of a prompt
            index_topk=8,
            index_head_dim=16,
            # of many heads one is above zero; tokens below it in all would rank alike, and any of them be chosen
            index_n_heads=16,
            sliding_window=8,
            swa_num_attention_heads=4,
            swa_num_key_value_heads=4,
            swa_q_lora_rank=16,
            swa_kv_lora_rank=16,
            swa_head_dim=16,
            swa_qk_nope_head_dim=8,
            swa_v_head_dim=16,
        ),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": 2,
            "patch_size": PATCH,
            "moe_intermediate_size": 32,
            "pyramid_num_routed": [-1, 4],
            "adapter_in_dim": size.vision_hidden,
            "adapter_out_dim": size.hidden,
            "initializer_range": INIT_STD,
        },
        audio_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "feature_size": 16,
            "downsample_hidden_size": 8,
            "adapter_input_size": 16,
            "adapter_out_dim": size.hidden,
        },
        image_token_id=token_id(tokenizer, "<|imgpad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        audio_token_id=token_id(tokenizer, "<|audio_comp_pad|>"),
    )
    processor = hf.Dots3NoteProcessor(
        Qwen2VLImageProcessor(**{**qwen_patches(most_tokens=size.most_tokens), "temporal_patch_size": 1}),
        tokenizer,
        hf.Qwen3VLVideoProcessor(**{**qwen_patches(most_tokens=16 * size.most_tokens), "temporal_patch_size": 1}),
        Dots3NoteFeatureExtractor(feature_size=16),
        chat_template=chatml(video="<|video_pad|>", image="<|imgpad|>"),
    )
    return Family(hf.Dots3NoteForConditionalGeneration, config, processor, tokenizer)


def _glm5_next(size: Size) -> Family:
    tokenizer = glm_tokenizer()
    config = hf.Glm5NextConfig(
        text_config=text_config(
            tokenizer,
            size,
            **_LATENT,
            num_hidden_layers=4,
            layer_types=[*["linear_attention"] * 3, "indexed_attention"],
            mlp_layer_types=["dense", *["sparse"] * 3],
            n_shared_experts=1,
            index_topk=8,
            index_kpool=4,
            index_head_dim=16,
            index_n_heads=16,
            linear_head_dim=8,
            linear_num_heads=4,
            hc_mult=2,
        ),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "projection_intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "image_size": size.image,
            "initializer_range": INIT_STD,
        },
        **glm_ids(tokenizer),
    )
    shape = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    processor = hf.Glm5NextProcessor(
        Glm5NextImageProcessor(**shape),
        tokenizer,
        hf.Glm5NextVideoProcessor(**shape, min_image_tokens=4, max_image_tokens=8 * size.most_tokens),
        chat_template=GLM_TEMPLATE,
    )
    return Family(hf.Glm5NextForConditionalGeneration, config, processor, tokenizer)


def kimi(size: Size) -> Family:
    """A type that is refused, because transformers fails on its clips."""
    marks = ["<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>", "<|kimi_k25_video_placeholder|>"]
    tokenizer = train_tokenizer(marks, pad="<|endoftext|>", eos=END)
    config = hf.Kimi_K25Config(
        text_config=text_config(
            tokenizer,
            size,
            **_LATENT,
            model_type="deepseek_v3",
            qk_rope_head_dim=8,
            first_k_dense_replace=1,
            n_group=1,
            topk_group=1,
            num_hidden_layers=3,
        ),
        vision_config={
            "patch_size": PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
        },
        projection_hidden_size=size.vision_hidden,
        image_token_id=token_id(tokenizer, "<|media_pad|>"),
        video_token_id=token_id(tokenizer, "<|kimi_k25_video_placeholder|>"),
        vision_start_token_id=token_id(tokenizer, "<|media_begin|>"),
        vision_end_token_id=token_id(tokenizer, "<|media_end|>"),
        tie_word_embeddings=False,
    )
    shape = {"patch_size": PATCH, "size": {"max_height": 64, "max_width": 64}}
    processor = hf.Kimi_K25Processor(
        Kimi_K25ImageProcessor(**shape),
        tokenizer,
        hf.Kimi_K25VideoProcessor(**shape, temporal_patch_size=4),
        chat_template=chatml(
            video="<|kimi_k25_video_placeholder|>",
            image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        ),
    )
    return Family(hf.Kimi_K25ForConditionalGeneration, config, processor, tokenizer)


def _minimax(size: Size) -> Family:
    marks = ["]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["]
    tokenizer = train_tokenizer(marks, pad="<|endoftext|>", eos=END)
    config = hf.MiniMaxM3VLConfig(
        text_config=text_config(
            tokenizer,
            size,
            num_hidden_layers=3,
            head_dim=16,
            rotary_dim=8,
            layer_types=["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
            mlp_layer_types=["dense", "sparse", "sparse"],
            dense_intermediate_size=2 * size.hidden,
            shared_intermediate_size=32,
            num_local_experts=4,
            num_experts_per_tok=2,
            index_n_heads=2,
            index_head_dim=16,
            # few enough for blocks of a prompt to be left out
            index_block_size=8,
            index_topk_blocks=2,
        ),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": 2,
            "image_size": size.image,
            "patch_size": PATCH,
            "initializer_range": INIT_STD,
        },
        image_token_index=token_id(tokenizer, "]<]image[>["),
        video_token_index=token_id(tokenizer, "]<]video[>["),
        projector_hidden_size=size.hidden,
    )
    shape = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    processor = hf.MiniMaxM3VLProcessor(
        MiniMaxM3VLImageProcessor(**shape, size={"shortest_edge": 4 * TOKEN, "longest_edge": 8 * TOKEN}),
        tokenizer,
        hf.MiniMaxM3VLVideoProcessor(**shape, size={"height": size.image, "width": size.image}),
        chat_template=chatml(video="]<]video[>[", image="]<]image[>["),
    )
    return Family(hf.MiniMaxM3SparseForConditionalGeneration, config, processor, tokenizer)


def _muse_spark(size: Size) -> Family:
    marks = ["<|patch|>", "<|image_start|>", "<|image_end|>", "<|video|>", "<|vid_frame_separator|>", "<|vid_start|>"]
    marks += ["<|vid_end|>", "<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>"]
    tokenizer = train_tokenizer(marks, pad="<|pad|>", eos=END)
    config = hf.MuseSparkConfig(
        text_config=text_config(
            tokenizer,
            size,
            num_hidden_layers=4,
            head_dim=16,
            sliding_window=8,
            moe_hidden_size=32,
            moe_intermediate_size=32,
            num_local_experts=4,
            num_experts_per_tok=2,
            mlp_layer_types=["dense", *["sparse"] * 3],
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
        },
        audio_config={
            "patch_sizes": [4, 4],
            "hidden_sizes": [8, 8],
            "depths": [1, 1],
            "num_hidden_layers": 2,
            "out_hidden_size": size.hidden,
        },
        image_token_id=token_id(tokenizer, "<|patch|>"),
        video_token_id=token_id(tokenizer, "<|video|>"),
        audio_token_id=token_id(tokenizer, "<|audio|>"),
        out_hidden_size=4 * size.vision_hidden,
        projector_hidden_size=size.hidden,
    )
    processor = hf.MuseSparkProcessor(
        MuseGlimmerImageProcessor(patch_size=PATCH),
        hf.MuseGlimmerVideoProcessor(patch_size=PATCH),
        tokenizer,
        MuseSparkFeatureExtractor(samples_per_token=16),
        chat_template=chatml(video="<|video|>", image="<|patch|>"),
    )
    return Family(hf.MuseSparkForConditionalGeneration, config, processor, tokenizer)


def _qwen4_exp(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.Qwen4ExpConfig(
        text_config=text_config(
            tokenizer,
            size,
            **{**LINEAR_TEXT, "layer_types": [*["linear_attention"] * 3, "indexed_attention"]},
            head_dim=16,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            num_experts=4,
            num_experts_per_tok=2,
            hc_count=2,
            hc_lowrank=8,
            ple_layer_ids=[1],
            ngram_vocab_size_base=1000,
            split_ngram_parts=2,
            heads_per_ngram=2,
            indexer_n_heads=2,
            indexer_kv_heads=1,
            indexer_head_dim=16,
            indexer_budget=8,
            indexer_compress_ratio=4,
        ),
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "out_hidden_size": size.hidden,
            "num_heads": 2,
            "patch_size": PATCH,
            "num_position_embeddings": 16,
            "initializer_range": INIT_STD,
        },
        **qwen_ids(tokenizer),
    )
    videos = hf.Qwen3VLVideoProcessor(**qwen_patches(most_tokens=8 * size.most_tokens))
    processor = qwen_processor(hf.Qwen3VLProcessor, tokenizer, videos, size)
    return Family(hf.Qwen4ExpForConditionalGeneration, config, processor, tokenizer)


def nemotron_processor(size: Size) -> hf.ProcessorMixin:
    """The processor of a type whose model is not built, because the processor already fails on clips."""
    marks = ["<image>", "<video>", "<so_embedding>", "<img>", "</img>"]
    tokenizer = train_tokenizer(marks, pad="<|endoftext|>", eos=END)
    tiles = {"patch_size": PATCH, "video_target_num_patches": 2 * size.most_tokens}
    processor: hf.ProcessorMixin = hf.NemotronH_Omni_Reasoning_V3Processor(
        NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=PATCH),
        NemotronH_Omni_Reasoning_V3VideoProcessor(norm_mean=[0.5] * 3, norm_std=[0.5] * 3, **tiles),
        tokenizer,
        ParakeetFeatureExtractor(),
        chat_template=chatml(video="<video>", image="<image>"),
    )
    return processor


RECIPES: dict[str, Callable[[Size], Family]] = {
    "cohere_compass": _cohere_compass,
    "cosmos3_edge": _cosmos3_edge,
    "dots3_note": _dots3_note,
    "glm5_next": _glm5_next,
    "minimax_m3_vl": _minimax,
    "muse_spark": _muse_spark,
    "qwen4_exp": _qwen4_exp,
}
