"""Training ends at the first number that is not finite, naming its videos, before anything of it is saved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from rbft.errors import ModelError
from rbft.vlm.batch import Batch
from rbft.vlm.finite import remedy
from rbft.vlm.tuning import trained_state

_TOO_FAST = "Lower model.optim.lr, or set trainer.gradient_clip_val."
_NO_STEP_YET = (
    "No step had changed a weight, so no learning rate is the cause: set model.dtype to float32 and trainer.precision "
    "to 32-true, or leave these videos out of the data."
)


class FiniteCheck(L.Callback):
    """Checks the loss of each micro-batch and the gradients of each step, on all processes together.

    All processes stop at the same step: one that went on would wait for the others.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._videos: list[list[str]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, index: int) -> None:
        """Note the videos of a micro-batch."""
        if index % trainer.accumulate_grad_batches == 0:
            self._losses, self._videos = [], []
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        examples = data.dataset("train").examples
        rows = zip(batch.indices, batch.weights.tolist(), strict=True)
        self._videos.append(list(dict.fromkeys(examples[i].record.video for i, weight in rows if weight > 0)))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Note the loss; reading it here would make the device wait once more."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Stop before weights are changed by a number that is not finite.

        Raises:
            ModelError: A loss or a gradient is not finite; names the step and the videos.
        """
        bad = [not finite for finite in torch.isfinite(torch.stack(self._losses)).tolist()]
        # a gradient scaler finds such gradients itself, leaves out the step and takes a smaller scale
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        spoilt = not scaled and not are_finite(grads)
        if not _anywhere(trainer, any(bad) or spoilt):
            return
        videos = [name for names, is_bad in zip(self._videos, bad, strict=True) if is_bad for name in names]
        losses = [float(loss) for loss, is_bad in zip(self._losses, bad, strict=True) if is_bad]
        parts = _gathered((videos, losses, [name for names in self._videos for name in names]))
        step, advice = f"at step {trainer.global_step}", _advice(trainer, pl_module)
        if bad_losses := [loss for _, losses, _ in parts for loss in losses]:
            names = ", ".join(name for videos, _, _ in parts for name in videos)
            raise ModelError(f"the loss became {bad_losses[0]} {step}, in the batch of {names}. {advice}")
        names = ", ".join(name for _, _, everything in parts for name in everything)
        raise ModelError(f"gradients became infinite or not a number {step}, in the batch of {names}. {advice}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Weights that are not finite are neither validated nor kept as the best."""
        self._require_weights(trainer, pl_module, [])

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save a checkpoint with numbers that are not finite; the one before stays.

        Raises:
            ModelError: A number is not finite.
        """
        states = [value for state in checkpoint.get("optimizer_states", []) for value in _tensors(state)]
        self._require_weights(trainer, pl_module, states)

    def _require_weights(self, trainer: L.Trainer, pl_module: L.LightningModule, more: list[Tensor]) -> None:
        if _anywhere(trainer, not are_finite([*trained_state(pl_module).values(), *more])):
            raise ModelError(
                f"weights or the state of the optimiser became infinite or not a number by step "
                f"{trainer.global_step}; nothing of them was saved. {_advice(trainer, pl_module)}"
            )


def _advice(trainer: L.Trainer, pl_module: L.LightningModule) -> str:
    """What fits the cause: damaged files of the model, too small a range of numbers, or steps that were too large."""
    begun = trainer.global_step > 0
    return remedy(pl_module, _TOO_FAST if begun else _NO_STEP_YET, trained=not begun)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of all tensors, or of this process's shards of them, are finite."""
    from torch.distributed.tensor import DTensor

    local = [value.to_local() if isinstance(value, DTensor) else value for value in tensors]
    floating = [value.detach() for value in local if value.is_floating_point() and value.numel()]
    return bool(torch.isfinite(get_total_norm(floating, norm_type=float("inf")))) if floating else True


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, (list, tuple)) else []


def _anywhere(trainer: L.Trainer, here: bool) -> bool:
    """Whether it is true on any process."""
    flag = torch.tensor(float(here), device=trainer.strategy.root_device)
    return bool(trainer.strategy.reduce(flag, reduce_op="max"))


def _gathered(content: Any) -> list[Any]:
    """The content of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return [content]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, content)
    return parts
