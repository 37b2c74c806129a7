"""The weights that were there before training: kept, gone back to, and mixed with the tuned ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rbft.vlm.tuning import trained_state


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that are about to be trained."""
    return {name: value.clone() for name, value in trained_state(model).items()}


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the block nothing of the model is random; afterwards its modules are in the modes that they were in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Reference:
    """The base model inside a tuned one: the same modules with the weights that were there first.

    Args:
        model: A model whose training has been set up.
        base: The parameters that are trained, as they were before; their memory is kept.
    """

    def __init__(self, model: nn.Module, base: Mapping[str, Tensor]) -> None:
        self._model = model
        self._base = dict(base)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block the model is the base model, without dropout; no gradients may be taken of it."""
        own = {name: parameter for name, parameter in self._model.named_parameters() if name in self._base}
        tuned = {name: parameter.data for name, parameter in own.items()}
        # the model may have been moved since
        self._base = {name: self._base[name].to(parameter.device) for name, parameter in own.items()}
        try:
            for name, parameter in own.items():
                parameter.data = self._base[name]
            with without_dropout(self._model):
                yield
        finally:
            for name, parameter in own.items():
                parameter.data = tuned[name]


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
