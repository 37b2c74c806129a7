"""The model as it was before any training, for what is to stay close to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from rbft.vlm.tuning import trained_state


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
        training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        # the model may have been moved since
        self._base = {name: self._base[name].to(parameter.device) for name, parameter in own.items()}
        try:
            for name, parameter in own.items():
                parameter.data = self._base[name]
            yield
        finally:
            for name, parameter in own.items():
                parameter.data = tuned[name]
            for module in training:
                module.training = True


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that are about to be trained."""
    return {name: value.clone() for name, value in trained_state(model).items()}
