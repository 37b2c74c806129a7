"""Recipes of families with an image tower, a projector and a language model; most resize every frame to one square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tests.support.family_parts import INIT_STD, PATCH, TOKEN, Family, Size, qwen_tokenizer, text_config, token_id, vit
from tests.support.family_text import END, chatml, train_tokenizer
from tests.support.qwen_families import LINEAR_TEXT
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor
from transformers.models.gemma4_unified.image_processing_gemma4_unified import Gemma4UnifiedImageProcessor
from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor
from transformers.models.minicpm_ocr.image_processing_minicpm_ocr import MiniCPMOcrImageProcessor
from transformers.models.minicpmv4_6.image_processing_minicpmv4_6 import MiniCPMV4_6ImageProcessor
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.perception_lm.image_processing_perception_lm import PerceptionLMImageProcessor
from transformers.models.video_llama_3.image_processing_video_llama_3 import VideoLlama3ImageProcessor
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor

_LLAVA_TEMPLATE = chatml(video="<video>\n", image="<image>\n")


def _llava_tokenizer() -> hf.PreTrainedTokenizerFast:
    return train_tokenizer(["<image>", "<video>"], pad="<|endoftext|>", eos=END)


def _square(size: Size) -> dict[str, int]:
    return {"height": size.image, "width": size.image}


def _llava_next_video(size: Size) -> Family:
    tokenizer = _llava_tokenizer()
    tiles = [[size.image, size.image], [size.image, 2 * size.image]]
    config = hf.LlavaNextVideoConfig(
        text_config=text_config(tokenizer, size, model_type="llama"),
        vision_config=vit(size, model_type="clip_vision_model"),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        image_grid_pinpoints=tiles,
        image_seq_length=16,
        video_seq_length=32,
    )
    shape = {"size": {"shortest_edge": size.image}, "crop_size": _square(size)}
    processor = hf.LlavaNextVideoProcessor(
        hf.LlavaNextVideoVideoProcessor(**shape),
        LlavaNextImageProcessor(**shape, image_grid_pinpoints=tiles),
        tokenizer,
        chat_template=_LLAVA_TEMPLATE,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Family(hf.LlavaNextVideoForConditionalGeneration, config, processor, tokenizer)


def _video_llava(size: Size) -> Family:
    tokenizer = _llava_tokenizer()
    patches = (size.image // PATCH) ** 2
    config = hf.VideoLlavaConfig(
        text_config=text_config(tokenizer, size, model_type="llama"),
        vision_config=vit(size, model_type="clip_vision_model"),
        image_token_index=token_id(tokenizer, "<image>"),
        video_token_index=token_id(tokenizer, "<video>"),
        image_seq_length=patches,
        video_seq_length=8 * (patches + 1),
    )
    shape = {"size": {"shortest_edge": size.image}, "crop_size": _square(size)}
    processor = hf.VideoLlavaProcessor(
        VideoLlavaImageProcessor(**shape),
        hf.VideoLlavaVideoProcessor(**shape),
        tokenizer,
        chat_template=_LLAVA_TEMPLATE,
        patch_size=PATCH,
    )
    return Family(hf.VideoLlavaForConditionalGeneration, config, processor, tokenizer)


def _video_llama_3(size: Size) -> Family:
    tokenizer = qwen_tokenizer()
    config = hf.VideoLlama3Config(
        text_config=text_config(tokenizer, size, model_type="qwen2"),
        vision_config={key: value for key, value in vit(size).items() if key != "image_size"},
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
    )
    bounds = {"shortest_edge": 4 * TOKEN, "longest_edge": 8 * size.most_tokens * TOKEN}
    shape = {"patch_size": PATCH, "merge_size": 2, "size": bounds}
    processor = hf.VideoLlama3Processor(
        VideoLlama3ImageProcessor(**shape),
        tokenizer,
        hf.VideoLlama3VideoProcessor(**shape),
        chat_template=chatml(video="<|video_pad|>", image="<|image_pad|>"),
    )
    return Family(hf.VideoLlama3ForConditionalGeneration, config, processor, tokenizer)


_GEMMA_NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
_GEMMA_TEMPLATE = chatml(video="<|video|>", image="<|image|>")


def _gemma_text(tokenizer: hf.PreTrainedTokenizerFast, size: Size, **extra: Any) -> dict[str, Any]:
    """Layers with a window and without in turn; a prompt is much longer than the window."""
    ropes = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    }
    return text_config(
        tokenizer,
        size,
        num_hidden_layers=4,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        per_layer_config={"1": {"head_dim": 16}, "3": {"head_dim": 16}},
        rope_parameters=ropes,
        **extra,
    )


def _gemma_ids(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, Any]:
    names = {"eoa_token_index" if name == "eoa_token" else f"{name}_id": token for name, token in _GEMMA_NAMED.items()}
    ids = {name: token_id(tokenizer, token) for name, token in (names | {"video_token_id": "<|video|>"}).items()}
    return {"audio_config": None, **ids}


def _gemma4(size: Size) -> Family:
    tokenizer = train_tokenizer(["<|video|>"], pad="<pad>", eos=END, named=_GEMMA_NAMED)
    levels = {"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 8}
    config = hf.Gemma4Config(
        text_config=_gemma_text(tokenizer, size, **levels),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": PATCH,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
            "initializer_range": INIT_STD,
        },
        **_gemma_ids(tokenizer),
    )
    shape = {"patch_size": PATCH, "pooling_kernel_size": 2}
    processor = hf.Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**shape, max_soft_tokens=280),
        tokenizer,
        hf.Gemma4VideoProcessor(**shape, max_soft_tokens=70),
        chat_template=_GEMMA_TEMPLATE,
        image_seq_length=280,
    )
    return Family(hf.Gemma4ForConditionalGeneration, config, processor, tokenizer)


def _gemma4_unified(size: Size) -> Family:
    tokenizer = train_tokenizer(["<|video|>"], pad="<pad>", eos=END, named=_GEMMA_NAMED)
    config = hf.Gemma4UnifiedConfig(
        text_config=_gemma_text(tokenizer, size),
        # no tower: patches go into the language model as they are
        vision_config={
            "patch_size": PATCH,
            "pooling_kernel_size": 2,
            "mm_embed_dim": size.vision_hidden,
            "mm_posemb_size": 64,
            "output_proj_dims": size.vision_hidden,
            "initializer_range": INIT_STD,
        },
        **_gemma_ids(tokenizer),
    )
    shape = {"patch_size": PATCH, "pooling_kernel_size": 2}
    processor = hf.Gemma4UnifiedProcessor(
        Gemma4UnifiedAudioFeatureExtractor(),
        Gemma4UnifiedImageProcessor(**shape, max_soft_tokens=280),
        tokenizer,
        hf.Gemma4UnifiedVideoProcessor(**shape, max_soft_tokens=70),
        chat_template=_GEMMA_TEMPLATE,
        image_seq_length=280,
    )
    return Family(hf.Gemma4UnifiedForConditionalGeneration, config, processor, tokenizer)


def _perception_lm(size: Size) -> Family:
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tokenizer = train_tokenizer([], pad="<pad>", eos=END, named=named)
    side = size.image // PATCH
    tower = {
        "embed_dim": size.vision_hidden,
        "depth": size.vision_layers,
        "num_heads": 2,
        "img_size": [size.image, size.image],
        "patch_size": PATCH,
        "global_pool": "",
        "use_pre_transformer_norm": True,
        "use_post_transformer_norm": False,
        "class_token": True,
        "use_fc_norm": False,
        "ref_feat_shape": [side, side],
    }
    config = hf.PerceptionLMConfig(
        text_config=text_config(tokenizer, size, model_type="llama", head_dim=16),
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_large_patch14_336",
            "do_pooling": True,
            "num_classes": 1,
            "global_pool": "map",
            "initializer_range": INIT_STD,
            "model_args": tower,
        },
        vision_use_cls_token=True,
        projector_pooling_ratio=2,
        image_token_id=token_id(tokenizer, "<|image|>"),
        video_token_id=token_id(tokenizer, "<|video|>"),
    )
    processor = hf.PerceptionLMProcessor(
        hf.PerceptionLMVideoProcessor(size=_square(size)),
        PerceptionLMImageProcessor(tile_size=size.image, max_num_tiles=2, size=_square(size)),
        tokenizer,
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=chatml(video="<|video|>", image="<|image|>"),
    )
    return Family(hf.PerceptionLMForConditionalGeneration, config, processor, tokenizer)


def _molmo2(size: Size) -> Family:
    marks = {
        "image_start_token_id": "<im_start>",
        "low_res_image_start_token_id": "<low_res_im_start>",
        "image_end_token_id": "<im_end>",
        "image_patch_id": "<im_patch>",
        "frame_start_token_id": "<frame_start>",
        "frame_end_token_id": "<frame_end>",
    }
    others = ["<im_col>", "<im_low>", "<|image|>", "<|video|>"]
    tokenizer = train_tokenizer([*marks.values(), *others], pad="<|endoftext|>", eos=END)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": INIT_STD}
    config = hf.Molmo2Config(
        text_config=text_config(tokenizer, size, head_dim=16, additional_vocab_size=16),
        vision_config={
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_hidden_layers": size.vision_layers,
            "image_size": [size.image, size.image],
            "patch_size": PATCH,
            "num_position_embeddings": (size.image // PATCH) ** 2,
            **heads,
        },
        adapter_config={
            "vision_feature_layer": [1, 0],
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "text_hidden_size": size.hidden,
            **heads,
        },
        **{name: token_id(tokenizer, token) for name, token in marks.items()},
    )
    shape = {"size": _square(size), "patch_size": PATCH, "pooling_size": [2, 2]}
    processor = hf.Molmo2Processor(
        Molmo2ImageProcessor(**shape, max_crops=2, overlap_margins=[1, 1]),
        hf.Molmo2VideoProcessor(**shape),
        tokenizer,
        chat_template=chatml(video="<|video|>", image="<|image|>"),
    )
    return Family(hf.Molmo2ForConditionalGeneration, config, processor, tokenizer)


MINICPM_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpm(model: str, processor: Any, videos: Any, images: Any, text: dict[str, Any]) -> Callable[[Size], Family]:
    def make(size: Size) -> Family:
        tokenizer = train_tokenizer([], pad="<|endoftext|>", eos=END, named=MINICPM_NAMED)
        config = getattr(hf, f"{model}Config")(
            text_config=text_config(tokenizer, size, **text),
            vision_config={**vit(size), "image_size": 224, "insert_layer_id": 0},
            insert_layer_id=0,
            image_size=64,
            patch_size=PATCH,
            image_token_id=token_id(tokenizer, "<|image_pad|>"),
            video_token_id=token_id(tokenizer, "<|video_pad|>"),
        )
        shape = {"patch_size": PATCH, "scale_resolution": 64}
        made = processor(
            images(**shape),
            videos(**shape),
            tokenizer,
            chat_template=chatml(video="<|video_pad|>", image="<|image_pad|>"),
        )
        return Family(getattr(hf, f"{model}ForConditionalGeneration"), config, made, tokenizer)

    return make


RECIPES: dict[str, Callable[[Size], Family]] = {
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4_unified,
    "llava_next_video": _llava_next_video,
    "minicpm_ocr": _minicpm(
        "MiniCPMOcr",
        hf.MiniCPMOcrProcessor,
        hf.MiniCPMOcrVideoProcessor,
        MiniCPMOcrImageProcessor,
        {"model_type": "qwen3", "head_dim": 16},
    ),
    "minicpmv4_6": _minicpm(
        "MiniCPMV4_6",
        hf.MiniCPMV4_6Processor,
        hf.MiniCPMV4_6VideoProcessor,
        MiniCPMV4_6ImageProcessor,
        {**LINEAR_TEXT, "model_type": "qwen3_5_text", "head_dim": 16},
    ),
    "minicpmv4_7": _minicpm(
        "MiniCPMV4_7",
        hf.MiniCPMV4_7Processor,
        hf.MiniCPMV4_6VideoProcessor,
        MiniCPMV4_6ImageProcessor,
        {**LINEAR_TEXT, "model_type": "qwen3_5_text", "head_dim": 16},
    ),
    "molmo2": _molmo2,
    "perception_lm": _perception_lm,
    "video_llama_3": _video_llama_3,
    "video_llava": _video_llava,
}
