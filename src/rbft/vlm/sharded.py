"""Models whose weights are spread over processes (FSDP2): a forward pass is something all of them do together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from rbft.vlm.model import VLM


def is_spread(vlm: VLM) -> bool:
    """Whether the weights are spread over processes."""
    return isinstance(vlm.base, FSDPModule)


def go_on(vlm: VLM, mine: bool) -> bool:
    """Whether there is more to compute: on this process, or on any of those that must compute together.

    Args:
        vlm: The model.
        mine: Whether there is on this process.
    """
    if not is_spread(vlm):
        return mine
    found = torch.tensor(int(mine), device=vlm.device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)
