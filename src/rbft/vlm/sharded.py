"""Models whose weights are sharded over processes (FSDP2): all of them run each forward pass together."""

from __future__ import annotations

import torch
import torch.distributed as dist

from rbft.vlm.model import VLM


def shards(strategy: object) -> bool:
    """Whether `trainer.strategy` shards weights, by its name or by its class.

    Args:
        strategy: the setting as it was parsed: a name, a mapping with `class_path`, or another value.
    """
    named = strategy.get("class_path") if hasattr(strategy, "get") else strategy
    return str(named).rpartition(".")[2] in ("fsdp2", "ShardedStrategy", "ModelParallelStrategy")


def is_sharded(vlm: VLM) -> bool:
    """Whether the weights are sharded over processes."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(vlm.base, FSDPModule)


def any_rank(vlm: VLM, here: bool) -> bool:
    """Whether there is more to compute: on this process, or on any of those that must compute together.

    Args:
        vlm: the model.
        here: whether there is more on this process.
    """
    if not is_sharded(vlm):
        return here
    flag = torch.tensor(int(here), device=vlm.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)
