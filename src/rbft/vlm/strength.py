"""Weights on the straight line between the base model and the tuned one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rbft.vlm.tuning import trained_state


class TuningStrength:
    """Sets how much of what was trained acts (WiSE-FT, Wortsman et al., arXiv 2109.01903).

    An adapter's output is scaled; whole parameters are interpolated. Merged, both are the same line: the base weights
    and `strength` times what tuning added to them.

    Args:
        model: A model with its trained weights loaded.
        base: The parameters that were trained, as they were before.
    """

    def __init__(self, model: nn.Module, base: Mapping[str, Tensor]) -> None:
        self._model = model
        self._tuned = {name: value.clone() for name, value in trained_state(model).items()}
        self._base = {name: value for name, value in base.items() if "lora_" not in name}

    @torch.no_grad()
    def set(self, strength: float) -> None:
        """Put the weights at `strength`: 0 is the base model, 1 the tuned one."""
        for name, value in trained_state(self._model).items():
            tuned = self._tuned[name]
            if "lora_A" in name:
                continue
            if "lora_B" in name:
                value.copy_(tuned * strength)
            else:
                # exact at both ends
                value.copy_(tuned if strength == 1 else torch.lerp(self._base[name], tuned, strength))
