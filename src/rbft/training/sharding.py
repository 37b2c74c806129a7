"""FSDP2: weights, gradients and optimiser state sharded over all processes, for models that do not fit one device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from rbft.errors import ConfigError, StageError
from rbft.training.checkpoint import Checkpoint, commit, newest_whole, next_name, not_sharded, read_part, write_part
from rbft.vlm.model import VLM
from rbft.vlm.tuning import trained_state


def shard(vlm: VLM, mesh: DeviceMesh) -> None:
    """Spread the weights of a model over the processes of `mesh`, layer by layer, in place.

    Each layer is gathered where it is computed and given up again after it (FSDP2, `torch.distributed.fsdp`; Zhao et
    al., arXiv 2304.11277). A vision tower in which nothing is trained stays whole on each process: processes whose
    clips were encoded before do not run it, and the others would wait for them.

    Args:
        vlm: the model, set up by its tuning and with the weights it starts from.
        mesh: one-dimensional device mesh.

    Raises:
        ConfigError: A layer has weights of several types that cannot be gathered together.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    base, whole = vlm.base, set(vlm.vision_parameters()) if vlm.vision_frozen else set()
    layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    # a layer within a layer first, and last the weights of no layer
    units = [*reversed([layer for layer in layers if not whole.issuperset(layer.parameters())]), base]
    taken = set(whole)
    for unit in units:
        gathered = set(unit.parameters()) - taken
        _require_one_dtype(unit, gathered)
        taken |= gathered
    for unit in units:
        # given up after every pass, the outermost too: what is saved is always the shard
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    if not vlm.vision_frozen:
        # encoding clips is a pass of its own
        for owner in (base, base.base_model):
            for name in ("get_video_features", "get_image_features"):
                if hasattr(owner, name):
                    register_fsdp_forward_method(owner, name)


def _require_one_dtype(unit: nn.Module, weights: Iterable[nn.Parameter]) -> None:
    """Refuse weights that would be gathered together and cannot be."""
    if len(dtypes := {weight.dtype for weight in weights if weight.requires_grad}) > 1:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ConfigError(
            f"trainer.strategy fsdp2: weights of {type(unit).__name__} are trained in {names}, which cannot be "
            "gathered together. Set model.dtype to float32 (trainer.precision bf16-mixed computes as fast), or "
            "train with trainer.strategy ddp."
        )


class ShardedStrategy(ModelParallelStrategy):
    """`trainer.strategy: fsdp2`: one shard of the model for each process of the run, no tensor parallelism.

    A checkpoint is a folder in which each process keeps its shards. The manifest names it when all of them are on
    disk, so a checkpoint is whole or absent; nothing is gathered for it.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The checkpoint is read by this class alone."""
        return True

    def setup_environment(self) -> None:
        """Join the other processes.

        Raises:
            ConfigError: The precision cannot be had: its gradient scaler looks at the shards of one process.
        """
        if getattr(self.precision_plugin, "scaler", None) is not None:
            raise ConfigError("trainer.precision 16-mixed does not work with trainer.strategy fsdp2; use bf16-mixed.")
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: L.Trainer) -> None:
        """Make it ready to run."""
        # weights that are first gathered in inference mode could not be trained afterwards
        for loop in (
            trainer.fit_loop.epoch_loop.val_loop,
            trainer.validate_loop,
            trainer.test_loop,
            trainer.predict_loop,
        ):
            loop.inference_mode = False
        super().setup(trainer)

    # -- the checkpoint

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This process's shards of what is trained."""
        assert self.lightning_module is not None
        return {name: _shard_of(value) for name, value in trained_state(self.lightning_module).items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This process's shards of the optimiser's state."""
        plain: Any = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state: dict[str, Any] = tree_map(_shard_of, plain.state_dict())
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write this process's part, and when all are there the file that names them."""
        manifest = Path(filepath)
        name = f"{self.broadcast(next_name(manifest) if self.global_rank == 0 else '')}/rank{self.global_rank}.ckpt"
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, (name, write_part(checkpoint, manifest.parent / name)))
        if self.global_rank == 0:
            commit(manifest, dict(parts), {"rbft": checkpoint["rbft"], "shards": True})
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read this process's part.

        Raises:
            StageError: It was saved by another strategy or by another number of processes, or is damaged.
        """
        manifest = Path(checkpoint_path)
        # all processes must go on from the same checkpoint
        checkpoint, refusal = self.broadcast(_newest(manifest) if self.global_rank == 0 else (None, ""))
        if checkpoint is None:
            raise StageError(refusal)
        if "shards" not in checkpoint.about:
            raise not_sharded("another strategy", "as it was")
        assert self.lightning_module is not None
        self.lightning_module.on_load_checkpoint(checkpoint.about)
        names = {Path(name).name: name for name in checkpoint.files}
        return read_part(manifest.parent / names[f"rank{self.global_rank}.ckpt"], "cpu")

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the shards of what is trained."""
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        for name, value in checkpoint["state_dict"].items():
            _shard_of(parameters[name].detach()).copy_(value)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the shards of the optimiser's state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                index: {key: _like(parameters[index], value) for key, value in values.items()}
                for index, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})


def _newest(manifest: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint to go on from, or why there is none."""
    try:
        return newest_whole(manifest), ""
    except StageError as error:
        return None, str(error)


def _shard_of(value: Any) -> Any:
    """What this process holds of a tensor."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def _like(parameter: Tensor, value: Any) -> Any:
    """A shard of an optimiser's state, as a part of what is kept about a parameter."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return DTensor.from_local(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


StrategyRegistry.register("fsdp2", ShardedStrategy, description="FSDP2, one shard of the model for each process")
