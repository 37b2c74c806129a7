"""The built-in model's configuration and initialisation: a small Qwen2.5-VL."""

from __future__ import annotations

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tools.tiny_vlm.tokenizer import (
    EOS,
    IMAGE,
    MERGE_SIZE,
    PAD,
    PATCH_SIZE,
    TEMPORAL_PATCH_SIZE,
    VIDEO,
    VISION_END,
    VISION_START,
    token_list,
)

HIDDEN, LAYERS, HEADS, FEED_FORWARD = 128, 4, 4, 384
RMS_EPSILON = 1e-6  # what the library's vision tower has built in
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS, VISION_FEED_FORWARD = 96, 2, 4, 192


def build_config() -> Qwen2_5_VLConfig:
    """The configuration, with the token ids of `tools.tiny_vlm.tokenizer`."""
    ids = {token: index for index, token in enumerate(token_list())}
    head_size = HIDDEN // HEADS
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": HIDDEN,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 512,
            "rms_norm_eps": RMS_EPSILON,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head_size // 4, head_size // 8, head_size // 8],
            },
            "pad_token_id": ids[PAD],
            "bos_token_id": None,
            "eos_token_id": ids[EOS],
            "tie_word_embeddings": True,
            "dtype": "float32",
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": VISION_FEED_FORWARD,
            "num_heads": VISION_HEADS,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            # All visual tokens share one temporal position: what the model sees does not depend on the frame rate a
            # file claims, and causal attention still tells the order of the tokens.
            "tokens_per_second": 0,
            "window_size": PATCH_SIZE * MERGE_SIZE,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
        },
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        dtype="float32",
    )


def build_model(seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model.

    The library's initialisation (0.02 everywhere) is far too small at this width: nothing is learned in the time there
    is. Weights are normal with 0.8 / sqrt(fan-in), what is added to the residual stream is scaled by 0.3.
    """
    torch.manual_seed(seed)
    config = build_config()
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_tokens" in name:
                parameter.normal_(0, 0.06)
            elif "patch_embed" in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            elif parameter.ndim == 2:
                parameter.normal_(0, 0.8 * parameter.shape[1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                parameter.mul_(0.3)
    generation = model.generation_config
    tokens = token_list()
    generation.pad_token_id, generation.eos_token_id = tokens.index(PAD), tokens.index(EOS)
    generation.max_new_tokens = 64
    return model
