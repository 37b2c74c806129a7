"""Tiny video encoders with random weights, one of each kind, as `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2VideoProcessor,
    XCLIPConfig,
    XCLIPModel,
)

FRAMES = 4
_SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    # large, so that features of different clips differ
    "initializer_range": 0.3,
}
_IMAGES: dict[str, Any] = {**_SMALL, "image_size": 32, "patch_size": 16, "num_frames": FRAMES}


def _videomae(kind: Any) -> Any:
    config = VideoMAEConfig(
        **_IMAGES,
        tubelet_size=2,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    model = kind(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("query.bias", "value.bias")):  # zeros at their start, as a failed load leaves them
                value.normal_()
    return model


def _vjepa2() -> Any:
    predictor = {f"pred_{key}": value for key, value in _SMALL.items() if key.startswith("num")}
    settings = {key: value for key, value in _SMALL.items() if key != "intermediate_size"} | predictor
    return VJEPA2ForVideoClassification(
        VJEPA2Config(
            **settings,
            patch_size=16,
            crop_size=32,
            frames_per_clip=FRAMES,
            pred_hidden_size=24,
            pred_num_mask_tokens=1,
            num_pooler_layers=1,
        )
    )


def _xclip() -> Any:
    mit = {f"mit_{key}": value for key, value in _SMALL.items() if key != "initializer_range"}
    vision = {**_IMAGES, **mit, "initializer_factor": 5.0}
    text = {**_SMALL, "vocab_size": 50}
    return XCLIPModel(
        XCLIPConfig(text_config=text, vision_config=vision, projection_dim=24, prompt_num_attention_heads=2)
    )


MODELS: dict[str, Callable[[], Any]] = {
    "videomae": lambda: _videomae(VideoMAEForVideoClassification),
    "vjepa2": _vjepa2,
    "xclip": _xclip,
    "timesformer": lambda: TimesformerForVideoClassification(TimesformerConfig(**_IMAGES)),
}


def make_encoder(folder: Path, kind: str, model: Any = None) -> Any:
    """Write an encoder with its processor to a folder.

    Args:
        folder: folder to write to.
        kind: kind of encoder.
        model: model to write; None: a new one, the same every time.

    Returns:
        The whole model, its head included.
    """
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MODELS[kind]()
    model.eval().save_pretrained(folder)
    processor: Any = (
        VJEPA2VideoProcessor(crop_size=32)
        if kind == "vjepa2"
        else VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    )
    processor.save_pretrained(folder)
    return model


def pre_trained_videomae() -> Any:
    """VideoMAE with the decoder of its pre-training."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return _videomae(VideoMAEForPreTraining)
