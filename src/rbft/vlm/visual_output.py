"""What `mm_encoder_outputs` of any family holds; apart from the rest because it needs transformers to be there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass
class VisualOutput(BaseModelOutputWithPooling):
    """What `mm_encoder_outputs` of any family holds for a modality.

    Args:
        deepstack_features: For each further level one tensor (N, H) a clip; None in families with a single level.
    """

    deepstack_features: list[tuple[Tensor, ...]] | None = None
