"""Optimisers and their rate over time for pre-training: Muon for hidden matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_WARM_UP_STEPS = 60
_CLIP_NORM = 1.0


class Optimisers:
    """Muon and AdamW as one; the rate of both follows `step`'s factor.

    Muon's updates are matched to AdamW's in size, so one rate means the same for both. Large matrices (patch embedding
    and merger) stay with AdamW: orthogonalising them would cost more than the step itself.

    Args:
        parameters: Names and parameters.
        rate: Learning rate of the hidden matrices.
        other_rate: Learning rate of embeddings, norms, biases, heads and large matrices.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], rate: float, other_rate: float) -> None:
        named = list(parameters)
        hidden = [p for name, p in named if _is_hidden(name, p)]
        others = [p for name, p in named if not _is_hidden(name, p)]
        self.parameters = hidden + others
        self.optimisers: list[torch.optim.Optimizer] = []
        if hidden:
            self.optimisers.append(
                torch.optim.Muon(hidden, lr=rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
            )
        if others:
            self.optimisers.append(
                torch.optim.AdamW(others, lr=other_rate, weight_decay=0.01, betas=(0.9, 0.98), foreach=True)
            )
        self.rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.steps = 0

    def step(self, factor: float) -> None:
        """Updates from the gradients and clears them; `factor` in 0..1 scales the rates, besides a warm-up."""
        torch.nn.utils.clip_grad_norm_(self.parameters, _CLIP_NORM)
        self.steps += 1
        scale = factor * min(1.0, self.steps / _WARM_UP_STEPS)
        for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimiser.step()
            optimiser.zero_grad()


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "embed_tokens" not in name and "head" not in name and max(parameter.shape) < 600


def decay(progress: float, hold: float, floor: float = 0.02) -> float:
    """1 until `hold` of the time, then a straight line to `floor` at the end."""
    return 1.0 if progress < hold else max(floor, 1.0 - (progress - hold) / (1.0 - hold))
