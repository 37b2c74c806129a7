"""Which of the processes of a run this is; known before any process group exists."""

from __future__ import annotations

import os

import torch.distributed as dist


def first_rank() -> bool:
    """Whether this process speaks and writes for the run.

    Launchers name the rank in the environment (RANK by torchrun, SLURM_PROCID by Slurm, LOCAL_RANK by Lightning's own)
    before the process group is there.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def grouped() -> bool:
    """Whether there is a process group of more than one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def can_agree() -> bool:
    """Whether every process there is now can hear of what the first one decides.

    Processes that a launcher outside started together know nothing of each other before the group is there.
    """
    together = any(int(os.environ.get(name, "1")) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    return grouped() or not together


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
