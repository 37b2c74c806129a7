"""Which layers of a model get a LoRA adapter: all linear ones of its language model, or those that are named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from rbft.errors import ConfigError
from rbft.vlm.model_parts import indexers
from rbft.vlm.upper_layers import layer_prefix, layers_of, names_above

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Targets:
    """What gets an adapter, in PEFT's words.

    Args:
        expression: Regular expression over the names of linear layers.
        layers: Names of those layers.
    """

    expression: str
    layers: tuple[str, ...]


def adapter_targets(model: PreTrainedModel, expression: str | None, first: int = 0) -> Targets:
    """The layers that a setting means in a model.

    Args:
        model: May be on the meta device.
        expression: As `LoRA.targets`.
        first: Index of the first layer of the language model that may get adapters; 0: all of them, and what is
            below them too.

    Raises:
        ConfigError: It names nothing, or something that an adapter cannot be added to, trained and merged into.
    """
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    taken = _taken_for_experts(model)
    if expression is None:
        leaves = sorted({name.rpartition(".")[2] for name in language_layers(model, first)} - taken)
        decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
        numbers = "|".join(map(str, range(first, len(layers_of(model)))))
        where = rf"{re.escape(layer_prefix(model))}({numbers})" if first else re.escape(decoder)
        # a choice of tokens has layers of its own, which may bear the names of others
        chooses = sorted({name.rpartition(".")[2] for name in indexers(model)})
        outside = rf"(?!.*\.({'|'.join(map(re.escape, chooses))})\.)" if chooses else ""
        whole = rf"{outside}{where}\.(.*\.)?({'|'.join(map(re.escape, leaves))})"
    else:
        numbers = "|".join(map(str, range(first)))
        below = rf"{re.escape(layer_prefix(model))}({numbers})\."
        whole = f"(?!{below})(?:{expression})" if first else expression
    key = f"model.tuning.targets: {(expression or whole)!r}"
    expression = whole
    matched = {name for name, _ in model.named_modules() if name and re.fullmatch(expression, name)}
    if other := sorted(matched - linear):
        raise ConfigError(
            f"{key} reaches {other[0]!r}, a {type(model.get_submodule(other[0])).__name__}; only linear layers get "
            "adapters."
        )
    if idle := sorted(name for name in matched if _inside(name, indexers(model))):
        raise ConfigError(
            f"{key} reaches {idle[0]!r}, which only chooses the tokens that are attended to and gets no gradient; "
            "leave it out."
        )
    above = names_above(model, first)
    if first and (lower := sorted(name for name in matched if f"{name}.weight" not in above)):
        raise ConfigError(
            f"{key} reaches {lower[0]!r}, which is below the upper layers that model.tuning.layers trains; leave it "
            "out of the expression."
        )
    if lost := sorted(name for name in matched if name.rpartition(".")[2] in taken):
        raise ConfigError(
            f"{key} reaches {lost[0]!r}, whose name PEFT keeps for the experts of this family; leave the layers named "
            f"{', '.join(sorted(taken))} out."
        )
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    if tied and any(model.get_submodule(name) is head for name in matched):
        raise ConfigError(
            f"{key} reaches the head, which shares its weights with the token embeddings of this model: an adapter "
            "in it could not be merged. Leave it out."
        )
    if not matched:
        where = f" in the upper {len(layers_of(model)) - first} layers (model.tuning.layers)" if first else ""
        named = sorted(language_layers(model, first))[-1]
        raise ConfigError(f"{key} matches no linear layer{where}; one is named {named!r}.")
    return Targets(expression, tuple(sorted(matched)))


def language_layers(model: PreTrainedModel, first: int = 0) -> list[str]:
    """Names of the linear layers of the language model that a loss can train, without its head.

    Args:
        model: May be on the meta device.
        first: Number of the layer from which on they count; 0: all.
    """
    inside = _modules_from(model, first)
    linear = [n for n, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) in inside]
    idle = indexers(model)
    return [name for name in linear if not _inside(name, idle)]


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _modules_from(model: PreTrainedModel, first: int) -> set[int]:
    parts = layers_of(model)[first:] if first else [model.get_decoder()]
    return {id(module) for part in parts for module in part.modules()}


def expert_stacks(model: PreTrainedModel, first: int = 0) -> list[str]:
    """Names of the weights that hold all experts of a layer of the language model, as one tensor; from `first` on."""
    inside = _modules_from(model, first)
    return [
        f"{name}.{weight}"
        for name, module in model.named_modules()
        if id(module) in inside and not isinstance(module, nn.Conv1d)
        for weight, value in module.named_parameters(recurse=False)
        if value.ndim == 3
    ]


def _taken_for_experts(model: PreTrainedModel) -> set[str]:
    """Last names of linear layers that PEFT takes for experts of this family, which it adapts by other means."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import (
        convert_peft_config_for_transformers,
        get_model_conversion_mapping,
    )

    conversions = get_model_conversion_mapping(model)
    taken = set()
    for leaf in {name.rpartition(".")[2] for name in language_layers(model)}:
        config = LoraConfig(target_modules=[leaf])
        try:
            convert_peft_config_for_transformers(config, model=model, conversions=conversions)
        except ValueError:
            taken.add(leaf)  # one of several that it takes together
        else:
            taken |= {leaf} if config.target_parameters else set()
    return taken
