"""The video encoders that are known: what class of transformers they are, and where in time their tokens belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class EncoderFamily:
    """A kind of video encoder.

    Args:
        name: name that people know.
        kind: class of transformers that its checkpoints are loaded with; heads that are not in it are not used.
        frames: function that gives the frames of a clip from its configuration.
        group: function that gives the frames that share a token.
        size: function that gives height and width of a frame, in pixels.
        positions: function that gives features for each position in time (B, T, H) from the model, its configuration
            and pixels (B, F, C, H, W).
        unused: beginnings of the names of weights in checkpoints that belong to heads.
        part: attribute of the loaded model that is the encoder; empty: all of it.
        joint: whether a token attends to those of all other positions.
    """

    name: str
    kind: str
    frames: Callable[[Any], int]
    group: Callable[[Any], int]
    size: Callable[[Any], int]
    positions: Callable[[Any, Any, Tensor], Tensor]
    unused: tuple[str, ...] = ()
    part: str = ""
    joint: bool = False


def _time_first(tokens: Tensor, positions: int) -> Tensor:
    """Mean of the tokens of each position, where all of one position stand together: (B, T * P, H) to (B, T, H)."""
    return tokens.unflatten(1, (positions, -1)).mean(2)


def _videomae(model: Any, config: Any, pixels: Tensor) -> Tensor:
    tokens = model(pixel_values=pixels).last_hidden_state
    return _time_first(tokens, pixels.shape[1] // config.tubelet_size)


def _vjepa2(model: Any, config: Any, pixels: Tensor) -> Tensor:
    tokens = model(pixel_values_videos=pixels).last_hidden_state
    return _time_first(tokens, pixels.shape[1] // config.tubelet_size)


def _timesformer(model: Any, config: Any, pixels: Tensor) -> Tensor:
    """Its class token is of the whole clip, and so of no position; the frames of a patch stand together."""
    clips, frames = pixels.shape[:2]
    tokens = model(pixel_values=pixels).last_hidden_state[:, 1:]
    if config.attention_type == "space_only":  # frames come as rows of their own
        return tokens.unflatten(0, (clips, frames)).mean(2)
    return tokens.unflatten(1, (-1, frames)).mean(1)


def _xclip(model: Any, config: Any, pixels: Tensor) -> Tensor:
    """What its tower hands on of each frame: the frame's class token, which has read the other frames' messages."""
    clips, frames = pixels.shape[:2]
    return model(pixel_values=pixels.flatten(0, 1)).pooler_output.unflatten(0, (clips, frames))


FAMILIES: dict[str, EncoderFamily] = {
    "videomae": EncoderFamily(
        "VideoMAE",
        "VideoMAEModel",
        frames=lambda config: config.num_frames,
        group=lambda config: config.tubelet_size,
        size=lambda config: config.image_size,
        positions=_videomae,
        joint=True,
        unused=("decoder.", "encoder_to_decoder.", "mask_token", "classifier.", "fc_norm."),
    ),
    "vjepa2": EncoderFamily(
        "V-JEPA 2",
        "VJEPA2Model",
        frames=lambda config: config.frames_per_clip,
        group=lambda config: config.tubelet_size,
        size=lambda config: config.crop_size,
        positions=_vjepa2,
        joint=True,
        unused=("pooler.", "classifier."),
        part="encoder",
    ),
    "xclip": EncoderFamily(
        "X-CLIP",
        "XCLIPModel",
        frames=lambda config: config.vision_config.num_frames,
        group=lambda config: 1,
        size=lambda config: config.vision_config.image_size,
        positions=_xclip,
        part="vision_model",
    ),
    "timesformer": EncoderFamily(
        "TimeSformer",
        "TimesformerModel",
        frames=lambda config: config.num_frames,
        group=lambda config: 1,
        size=lambda config: config.image_size,
        positions=_timesformer,
        unused=("classifier.",),
    ),
}
"""Kinds of video encoder by the `model_type` of their configuration."""
