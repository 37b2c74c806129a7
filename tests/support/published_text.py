"""Tiny models around published tokenizers: their whole vocabulary, and weights of no size."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from tests.support.family_parts import INIT_STD, QWEN3_ROPE, TINY, qwen_ids, qwen_patches
from tests.support.family_text import chatml
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

VOCABULARY = 151_936  # rows of the published embeddings, some of which no token has


def build_qwen3_vl(tokenizer_folder: Path, folder: Path) -> Path:
    """A Qwen3-VL class of two layers with the tokenizer of a folder, and Qwen3's generation settings."""
    tokenizer = hf.AutoTokenizer.from_pretrained(tokenizer_folder)
    config = hf.Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": TINY.hidden,
            "intermediate_size": 2 * TINY.hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": QWEN3_ROPE,
            "initializer_range": INIT_STD,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": TINY.vision_hidden,
            "intermediate_size": 2 * TINY.vision_hidden,
            "out_hidden_size": TINY.hidden,
            "num_heads": 2,
            "patch_size": 8,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": INIT_STD,
        },
        tie_word_embeddings=True,
        **qwen_ids(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.Qwen3VLForConditionalGeneration(config)
    pad = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model.generation_config = hf.GenerationConfig(
        bos_token_id=pad,
        pad_token_id=pad,
        eos_token_id=[tokenizer.eos_token_id, pad],
        do_sample=True,
        top_k=20,
        top_p=0.8,
        temperature=0.7,
    )
    model.save_pretrained(folder)
    # as in the published template, a thought is put before answers, empty where it is not asked for
    thought = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    template = chatml(
        video="<|vision_start|><|video_pad|><|vision_end|>", image="<|vision_start|><|image_pad|><|vision_end|>"
    ).replace("assistant\n{% endif %}", f"assistant\n{thought}{{% endif %}}")
    videos = hf.Qwen3VLVideoProcessor(**qwen_patches(most_tokens=8 * TINY.most_tokens))
    images = Qwen2VLImageProcessor(**qwen_patches(most_tokens=TINY.most_tokens))
    hf.Qwen3VLProcessor(images, tokenizer, videos, chat_template=template).save_pretrained(folder)
    return folder
