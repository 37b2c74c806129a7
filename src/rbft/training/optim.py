"""AdamW with a learning rate for each part of the model, and warm-up then cosine or constant rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rbft.errors import ConfigError
from rbft.vlm.model_parts import Part


@dataclass(frozen=True)
class OptimSettings:
    """How weights are updated.

    Args:
        lr: learning rate of the language model and its adapters.
        projector_lr: learning rate of the projector; None: `lr`.
        vision_lr: learning rate of the vision tower; None: `lr`.
        weight_decay: decay of weights with two and more dimensions.
        betas: AdamW's running averages.
        eps: AdamW's epsilon.
        warmup: share of the steps over which rates rise linearly from 0.
        schedule: course of the rates afterwards.
    """

    lr: float = 1e-4
    projector_lr: float | None = None
    vision_lr: float | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup: float = 0.03
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        for key in ("lr", "projector_lr", "vision_lr", "weight_decay", "eps"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"model.optim.{key}: {value} must be a number of at least 0.")
        if not all(0 <= beta < 1 for beta in self.betas) or not 0 <= self.warmup < 1:
            raise ConfigError("model.optim: betas and warmup lie in [0, 1).")


def planned_steps(steps_an_epoch: int, max_epochs: int | None, max_steps: int) -> int:
    """Optimiser steps of a training: over as many epochs, or up to a number of steps if that comes first.

    Args:
        steps_an_epoch: optimiser steps of an epoch.
        max_epochs: number of epochs; -1 for no bound. None: one, or no bound where steps have one.
        max_steps: most steps; -1 for no bound.
    """
    epochs = max_epochs if max_epochs is not None else -1 if max_steps >= 0 else 1
    bounds = [steps_an_epoch * epochs] if epochs >= 0 else []
    return min([*bounds, *([max_steps] if max_steps >= 0 else [])], default=0)


def rate_factor(settings: OptimSettings, total_steps: int) -> Callable[[int], float]:
    """Factor on the learning rates at each optimiser step, counted from 0."""
    warm = math.ceil(settings.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if settings.schedule == "constant":
            return 1.0
        done = (step - warm) / max(1, total_steps - warm)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def parameter_groups(
    settings: OptimSettings, parameters: Iterable[tuple[str, nn.Parameter]], parts: Mapping[str, Part]
) -> list[dict[str, Any]]:
    """Trained parameters by part of the model and by whether they decay."""
    rates = {
        "language": settings.lr,
        "projector": settings.lr if settings.projector_lr is None else settings.projector_lr,
        "vision": settings.lr if settings.vision_lr is None else settings.vision_lr,
    }
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            part, decays = parts[name], parameter.ndim > 1
            group = groups.setdefault(
                (part, decays),
                {"params": [], "lr": rates[part], "weight_decay": settings.weight_decay if decays else 0.0},
            )
            group["params"].append(parameter)
    if not groups:
        raise ConfigError("model.tuning: nothing is trained; set at least one part to 'train'.")
    return [groups[key] for key in sorted(groups)]


def configure(settings: OptimSettings, groups: list[dict[str, Any]], total_steps: int) -> dict[str, Any]:
    """Optimiser and schedule in Lightning's format, for `parameter_groups`."""
    optimizer = AdamW(groups, betas=settings.betas, eps=settings.eps)
    scheduler = LambdaLR(optimizer, rate_factor(settings, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
