"""Which layers of a language model are trained: all, or a number of the upper ones, below which nothing is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rbft.errors import ConfigError
from rbft.vlm.adapters import has_adapters
from rbft.vlm.model_parts import parts_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_LAST_NORMS = ("norm", "embedding_norm")


def check_layers(layers: float | None) -> None:
    """Refuse what is neither a number of layers nor a fraction of them.

    Args:
        layers: As `LoRA.layers`.

    Raises:
        ConfigError: Names the key and what it may be.
    """
    whole = isinstance(layers, int) and not isinstance(layers, bool) and layers >= 1
    # the reader of experiment files makes 1.0 of a 1, as it tries both types; a fraction is below 1
    whole = whole or (isinstance(layers, float) and layers >= 1 and layers.is_integer())
    fraction = isinstance(layers, float) and 0 < layers < 1
    if layers is not None and not whole and not fraction:
        raise ConfigError(
            f"model.tuning.layers: {layers} is neither a whole number of layers, at least 1, nor a fraction of them "
            "between 0 and 1; leave it out to train all."
        )


def first_of(model: PreTrainedModel, layers: float | None) -> int:
    """Index of the first layer of the language model that `layers` means.

    Args:
        model: Without adapters; may be on the meta device.
        layers: How many upper layers; a fraction is rounded up to a whole number. None: all.

    Raises:
        ConfigError: The language model has fewer.
    """
    total = len(layers_of(model))
    if layers is None:
        return 0
    # a third of three layers is one, whatever the last bit of the product
    count = int(layers) if layers >= 1 else math.ceil(layers * total - 1e-9)
    if count > total:
        raise ConfigError(
            f"model.tuning.layers: {count} are more than the {total} layers of this language model; set at most "
            f"{total}, or leave it out to train all."
        )
    return total - count


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the language model, from its input to its output."""
    decoder: Any = model.get_decoder()
    return list(decoder.layers)


def layer_prefix(model: PreTrainedModel) -> str:
    """What the names of all its layers begin with; the number of the layer and a point come next."""
    stack = model.get_decoder().layers
    return next(f"{name}." for name, module in model.named_modules() if module is stack)


def names_above(model: PreTrainedModel, first: int) -> set[str]:
    """Names of the weights of the language model in the layers from `first` on and after them.

    Behind them are the last norm and the head, unless it shares its weights with the token embeddings.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    modules = layers_of(model)[first:] + [child for name, child in decoder.named_children() if name in _LAST_NORMS]
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        modules.append(head)
    above = {id(value) for module in modules for value in module.parameters()}
    return {name for name, value in model.named_parameters() if id(value) in above}


def first_trained(model: PreTrainedModel | PeftModel) -> int:
    """Index of the first layer that gradients reach: what enters it is the same whatever training does.

    0 where token embeddings, vision tower, projector, or anything else below the layers is trained.
    """
    base: Any = model.get_base_model() if has_adapters(model) else model
    trained = {name for name, value in base.named_parameters() if value.requires_grad}
    stack = layers_of(base)
    for first in range(len(stack), -1, -1):
        if first == 0 or trained <= names_above(base, first):
            # at least one layer computes with gradients, so that there is something to go on from
            return min(first, len(stack) - 1)
    raise AssertionError("unreachable")


def tensors_below(model: PreTrainedModel, first: int) -> dict[str, Tensor]:
    """Parameters and buffers of the language model that decide what enters the layer `first`, by name."""
    above, prefix = names_above(model, first), layer_prefix(model)
    parts = parts_of(model)
    upper = tuple(f"{prefix}{number}." for number in range(first, len(layers_of(model))))
    state = (*model.named_parameters(), *model.named_buffers())
    return {
        name: value
        for name, value in state
        if parts[name] == "language" and name not in above and not name.startswith(upper)
    }
