"""Weights that are trained are held in float32, whatever the checkpoint's type; what is frozen stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hold_in_float32(model: nn.Module) -> torch.dtype | None:
    """Convert the trained weights of a model to float32, in place.

    A weight in bfloat16 has eight significant bits, so an update of less than about 1/512 of it is rounded away, and
    nearly all updates of fine-tuning are smaller (master weights: Micikevicius et al., arXiv 1710.03740, section 3.1).

    Args:
        model: Set up by its tuning; may be on the meta device.

    Returns:
        The type that the converted weights had, which is to be computed in; None where all are in float32 already.
    """
    before: torch.dtype | None = None
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            before = parameter.dtype
            parameter.data = parameter.data.float()
    return before


def convert_between(model: PreTrainedModel) -> None:
    """Have a model whose weights are of several types convert what passes from one to another under autocast.

    Products of matrices convert their inputs by themselves. Features of clips are put among token embeddings, and some
    families convert those to the type of the whole model; LayerNorm on a CPU takes no input of more bits than its
    weights have.

    Args:
        model: Some of whose weights are held in float32.
    """

    def convert_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(model.dtype)

    def convert_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        weight = module.weight
        assert isinstance(weight, Tensor)
        return (inputs[0].to(weight.dtype), *inputs[1:])

    model.get_input_embeddings().register_forward_hook(convert_output)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and module.weight is not None and module.weight.dtype != torch.float32:
            module.register_forward_pre_hook(convert_input)
