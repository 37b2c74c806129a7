"""The last layer of a language model where its output is read, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

# What in a layer works on each token alone and serves no other token. Keys and values serve all tokens after.
_QUERY, _RESULT, _FORWARD = "self_attn.q_proj", "self_attn.o_proj", "mlp"


@contextmanager
def read_at(decoder: nn.Module, keep: Tensor) -> Iterator[None]:
    """While it lasts, compute the last layer's queries and all that follows its attention at the kept places only.

    What the last layer makes of a token is read by the head alone. Where no logits are asked for, the token's query,
    the output of its attention and its feed-forward network are not needed, and what stands there means nothing. At
    the kept places results and gradients are those of the whole layer. What goes by other names in a model, experts
    among it, is computed whole.

    Args:
        decoder: The language model.
        keep: (B, L) bool, where logits are asked for.
    """
    # as numbers, found once: a mask would be counted anew at each use, and a GPU waited for
    places = keep.nonzero(as_tuple=True)

    def gather(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][places].unsqueeze(0), *inputs[1:])

    def scatter(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros((*keep.shape, output.shape[-1]))
        whole[places] = output[0]
        return whole

    layers: Any = getattr(decoder, "layers", [])
    with ExitStack() as undone:
        for last in layers[-1:]:
            for part in _own_parts(last):
                undone.callback(part.register_forward_pre_hook(gather).remove)
                undone.callback(part.register_forward_hook(scatter).remove)
            # Computed anew in the backward pass it would be computed whole, for this has ended by then. It would be
            # the first to be, so that what it keeps now would be in memory soon anyway.
            if getattr(last, "gradient_checkpointing", False):
                undone.callback(setattr, last, "gradient_checkpointing", True)
                last.gradient_checkpointing = False
        yield


def _own_parts(layer: nn.Module) -> list[nn.Module]:
    parts = dict(layer.named_modules())
    names = [_QUERY, _RESULT, *([_FORWARD] if f"{_FORWARD}.down_proj" in parts else [])]
    return [parts[name] for name in names if name in parts]
