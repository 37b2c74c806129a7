"""What a model computes is looked at once: a result of numbers that are none would pass for one of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rbft.errors import ModelError
from rbft.vlm.batch import PromptInputs


def require_finite(values: Tensor, prompts: Sequence[PromptInputs], what: str, model: nn.Module) -> None:
    """Stop at the first prompt about which the model gave what is no finite number.

    Args:
        values: (B, ...), the first dimension one for each prompt.
        prompts: What was asked.
        what: What the values are, for the message.
        model: The model, whose weights tell the cause.

    Raises:
        ModelError: Names the video and says what to do.
    """
    finite = torch.isfinite(values).reshape(len(values), -1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ModelError(f"{prompts[row].video or 'a text'}: {what} are not all finite numbers. {remedy(model)}")


def remedy(model: nn.Module, otherwise: str = "", *, trained: bool = True) -> str:
    """What to do about numbers that are none: what the weights of a model tell of the cause.

    Args:
        model: The model.
        otherwise: Where no weight is at fault; empty: as for a model that is asked.
        trained: whether weights that are being trained are checked too; a step may have damaged those.
    """
    for name, value in model.named_parameters():
        if value.requires_grad and not trained:
            continue
        local = value.to_local() if hasattr(value, "to_local") else value
        if local.is_floating_point() and not bool(torch.isfinite(local.detach()).all()):
            if "lora_" in name:
                return f"The trained weight {name!r} holds such numbers: train the stage again with --restart."
            return (
                f"The model's weight {name!r} holds such numbers: its files are damaged, or its training went wrong. "
                "Fetch the model again, or name another one in model.vlm."
            )
    return otherwise or (
        "The model's weights are finite, so numbers overflow on the way: set model.dtype to float32 and "
        "trainer.precision to 32-true, or leave the video out of the data."
    )
