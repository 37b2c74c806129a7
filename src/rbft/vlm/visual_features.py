"""Visual features between a model's encoder and its forward pass: of one clip, and of several together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from rbft.vlm.batch import EncodedClip

if TYPE_CHECKING:
    from rbft.vlm.visual_output import VisualOutput


def modality_of(vision: Mapping[str, Tensor]) -> Literal["image", "video"]:
    """What the family takes a clip for, by the names of its processor's output; some take it for pictures."""
    return "video" if "pixel_values_videos" in vision else "image"


def encoded_clip(output: Any, vision: Mapping[str, Tensor], text: str, position_keys: Collection[str]) -> EncodedClip:
    """What an encoder gave for one clip, in the one form of all families.

    Args:
        output: output of the model's `get_video_features` or `get_image_features`.
        vision: What it was given, by the processor's names.
        text: What stands for the clip in a prompt's text.
        position_keys: What of it token positions are made of (`rbft.vlm.abilities.position_keys`).
    """
    return EncodedClip(
        modality=modality_of(vision),
        features=_rows(output.pooler_output),
        deepstack=tuple(_rows(level) for level in getattr(output, "deepstack_features", None) or ()),
        joined=isinstance(output.pooler_output, Tensor),
        positions={key: value for key, value in vision.items() if key in position_keys},
        text=text,
    )


def _rows(features: Tensor | Sequence[Tensor]) -> Tensor:
    """The features of one clip (N, H), which families give as a tensor or in parts."""
    parts = [features] if isinstance(features, Tensor) else features
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def together(clips: Sequence[EncodedClip]) -> VisualOutput:
    """Features of several clips as an encoder gives those of one call."""
    from rbft.vlm.visual_output import VisualOutput

    features = tuple(clip.features for clip in clips)
    levels = range(len(clips[0].deepstack))
    return VisualOutput(
        # annotated as a tensor there, and a tuple in most families
        pooler_output=cast(Any, torch.cat(features).unsqueeze(0) if clips[0].joined else features),
        deepstack_features=[tuple(clip.deepstack[level] for clip in clips) for level in levels] or None,
    )
