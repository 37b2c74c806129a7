"""What a preloaded worker imports once for all of its runs: everything that `rbft fit` needs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

import rbft.pipeline  # noqa: F401
from rbft.__main__ import main


def fit(args: Sequence[str]) -> int:
    """`rbft fit` in a fork, with the threads that its worker was given; torch was imported for one alone."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(threads) if threads.isdecimal() else cores)
    return main(["fit", *args])
