"""What a family of models can do, asked of its configuration and its loaded model instead of its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rbft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def sees_every_token(config: PreTrainedConfig) -> bool:
    """Whether every layer of a language model attends to all tokens before, and so takes a mask of the padding.

    A shorter prompt of a batch has padding between its last token and what is written after it. Full attention is
    masked to skip that. A layer with a window counts it as tokens, and one with a running state reads it.

    Args:
        config: config of the whole model.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DummyLayer, DynamicLayer

    layers = DynamicCache(config=config).layers
    # by the very class: layers with a window, an index or a state inherit from the plain one
    return all(type(layer) in (DynamicLayer, DummyLayer) for layer in layers)


def encoder_of(model: PreTrainedModel, modality: Literal["image", "video"]) -> Callable[..., Any]:
    """What makes visual features of a clip, wherever a family has it; called with the processor's names.

    Args:
        model: model with a head for language.
        modality: modality that the family's processor takes a clip for.

    Raises:
        ModelError: The model has none.
    """
    for owner in (model, model.base_model):
        if (encoder := getattr(owner, f"get_{modality}_features", None)) is not None:
            return encoder
    if modality == "video":
        # the frames of a clip go the way of pictures
        pictures = encoder_of(model, "image")
        return lambda pixel_values_videos, **others: pictures(pixel_values=pixel_values_videos, **others)
    raise ModelError(f"a {model.config.model_type!r} model gives no visual features apart from its answer.")


def position_keys(model: PreTrainedModel) -> frozenset[str]:
    """What of a processor's visual output token positions are made of; the rest goes to the encoder only.

    Args:
        model: model with a head for language.
    """
    positions = getattr(model.base_model, "get_rope_index", None)
    named = () if positions is None else inspect.signature(positions).parameters
    return frozenset(named) - {"input_ids", "mm_token_type_ids", "attention_mask", "kwargs"}


@dataclass(frozen=True)
class Masks:
    """What a language model does with attention masks.

    Args:
        taken: Whether a mask that says for each token which others it sees is taken as it is.
        causal: Whether, left to itself, no token of a clip sees one after it.
    """

    taken: bool
    causal: bool


@torch.no_grad()
def masks_of(model: PreTrainedModel) -> Masks:
    """How attention is masked, seen in front of the first layer, before anything is computed.

    Args:
        model: model with a head for language; its layers are not run.
    """
    length = 6
    embeddings = torch.zeros((1, length, model.config.get_text_config().hidden_size), dtype=model.dtype)
    places = torch.arange(length).expand(3 if hasattr(model.base_model, "get_rope_index") else 1, 1, length)
    given: dict[str, Any] = {
        "inputs_embeds": embeddings,
        "position_ids": places if len(places) == 3 else places[0],
        # text around two visual tokens of either kind
        "mm_token_type_ids": torch.tensor([[0, 1, 1, 2, 2, 0]]),
        "use_cache": False,
    }
    own = torch.eye(length, dtype=torch.bool)[None, None]
    if model.config.get_text_config()._attn_implementation != "sdpa":
        own = torch.zeros(own.shape, dtype=model.dtype).masked_fill(~own, torch.finfo(model.dtype).min)
    reached = _in_front_of_layers(model, given | {"attention_mask": own})
    left = _in_front_of_layers(model, given)
    return Masks(
        taken=reached is not None and reached.shape == own.shape and torch.equal(reached.cpu(), own),
        causal=left is None or left.ndim != 4 or not _visible(left).triu(1).any(),
    )


class _ReachedError(Exception):
    """Carries the mask that reached the first layer."""

    def __init__(self, mask: Tensor | None) -> None:
        self.mask = mask


def _in_front_of_layers(model: PreTrainedModel, arguments: dict[str, Any]) -> Tensor | None:
    def stop(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ReachedError(kwargs["attention_mask"])

    first: Any = model.get_decoder().layers[0]
    hook = first.register_forward_pre_hook(stop, with_kwargs=True)
    on = {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in arguments.items()}
    try:
        model(**on)
    except _ReachedError as reached:
        return reached.mask
    finally:
        hook.remove()
    raise ModelError(f"a {model.config.model_type!r} model reads text past its layers.")


def _visible(mask: Tensor) -> Tensor:
    """Of a mask of either kind, bool or added to the scores."""
    return mask if mask.dtype == torch.bool else mask == 0
