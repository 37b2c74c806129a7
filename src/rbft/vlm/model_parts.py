"""Which part of a model a weight belongs to, read from the model itself: language model, projector or vision tower."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from rbft.vlm.adapters import has_adapters

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Part = Literal["language", "projector", "vision"]


def parts_of(model: PreTrainedModel | PeftModel) -> dict[str, Part]:
    """The part of each parameter and buffer, by name; one that has several names stands under each.

    The language model is what transformers calls the decoder, with token embeddings and head. A vision tower is what
    it calls the encoder of pictures. Everything else maps features into the language model; towers that do so
    themselves have modules for it after their stack of layers, whose weights are as wide as the language model.

    Args:
        model: With or without adapters, which belong to the part that they are in.
    """
    base: PreTrainedModel = model.get_base_model() if has_adapters(model) else model  # type: ignore[assignment]
    language = _tensors(_language_modules(base))
    towers = vision_towers(base)
    vision = _tensors(towers)
    projecting = _tensors(module for tower in towers for module in _projecting(tower, _width(base)))
    parts: dict[str, Part] = {}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, value in named:
        if id(value) in language:
            parts[name] = "language"
        else:
            parts[name] = "vision" if id(value) in vision - projecting else "projector"
    return parts


def vision_towers(model: PreTrainedModel) -> list[nn.Module]:
    """What turns pixels into features of its own; some families have one for pictures and one for videos."""
    language = {module for part in _language_modules(model) for module in part.modules()}
    named = [model.get_encoder(modality=modality) for modality in ("image", "video")]
    kinds = {type(tower) for tower in named if tower is not None and tower not in {model, model.base_model}}
    return [module for module in model.modules() if type(module) in kinds and module not in language]


def indexers(model: nn.Module) -> list[str]:
    """Names of what only chooses the tokens that a layer attends to, as in sparse attention with an index.

    A choice passes no gradient, so that a loss on answers cannot train these weights.

    Args:
        model: May be on the meta device.
    """
    return [name for name, module in model.named_modules() if type(module).__name__.endswith("Indexer")]


def _language_modules(model: PreTrainedModel) -> list[nn.Module]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [model.get_decoder(), *(module for module in ends if module is not None)]


def _tensors(modules: Iterable[nn.Module]) -> set[int]:
    return {id(value) for module in modules for value in (*module.parameters(), *module.buffers())}


def _width(model: PreTrainedModel) -> int:
    width: int = model.config.get_text_config().hidden_size
    return width


def _projecting(tower: nn.Module, width: int) -> list[nn.Module]:
    """Modules of a tower after its stack of layers that make features of the language model's width."""
    children = list(tower.children())
    stacks = [place for place, child in enumerate(children) if isinstance(child, nn.ModuleList)]
    if not stacks:
        return []
    return [child for child in children[stacks[0] + 1 :] if any(_makes(weight, width) for weight in child.parameters())]


def _makes(weight: Tensor, width: int) -> bool:
    return weight.ndim > 1 and weight.shape[0] == width
