"""What two processes with a model spread over them do in tests, each started by `torch.multiprocessing`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from tests.support.models import Loaded, load, make_clip
from torch.distributed.device_mesh import init_device_mesh

from rbft.training.sharding import shard
from rbft.vlm.batch import PromptInputs
from rbft.vlm.generation import generate
from rbft.vlm.tuning import FullFineTuning

QUESTIONS = ("what?", "who turns?", "where?")
TOKENS = 12


def prompts(loaded: Loaded) -> list[PromptInputs]:
    return [loaded.inputs(question, make_clip(seed)) for seed, question in enumerate(QUESTIONS)]


def write(loaded: Loaded, rows: Sequence[PromptInputs], ends: tuple[int, ...]) -> list[list[int]]:
    """Greedy answers that end at `ends`."""
    loaded.vlm.end_ids = ends
    return [answer[0].tolist() for answer in generate(loaded.vlm, rows, max_new_tokens=TOKENS)]


def write_unevenly(rank: int, folder: Path, ends: tuple[int, ...], shares: Sequence[Sequence[int]], out: Path) -> None:
    """One process of those that write together; each stops at a step of its own.

    Args:
        rank: Of this process.
        folder: The model's.
        ends: Tokens that end an answer.
        shares: Which prompts each process writes about.
        out: Folder for the answers.
    """
    torch.set_num_threads(1)
    store = dist.FileStore(str(out / "store"), len(shares))
    # a process that waits for a pass that no other makes must fail, not hang
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(shares), timeout=timedelta(seconds=60))
    loaded = load(folder, FullFineTuning())
    shard(loaded.vlm, init_device_mesh("cpu", (len(shares),)))
    rows = prompts(loaded)
    torch.save(write(loaded, [rows[i] for i in shares[rank]], ends), out / f"{rank}.pt")
    dist.destroy_process_group()
