"""The device a run will use: its name and memory, and how fast it is, measured in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

_CONTEXT = 600_000_000
"""Bytes that a process takes of a GPU before its first tensor: driver context and libraries."""
_RUNS = 4


@dataclass(frozen=True)
class Device:
    """Where a run computes.

    Args:
        name: name that people know.
        kind: torch's name of the kind of device.
        processes: number of processes that work together, on all nodes.
        memory: bytes that tensors may take on each; None where there is no such limit (the memory of a CPU is shared
            with everything else, and can be swapped).
    """

    name: str
    kind: Literal["cpu", "cuda"]
    processes: int
    memory: int | None


def device_of(trainer: dict[str, Any]) -> Device:
    """What the trainer's settings will give on this machine."""
    accelerator, devices = trainer["accelerator"], trainer["devices"]
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices).lstrip("-").isdigit() and int(devices) > 0:
        count = int(devices)
    else:
        count = max(1, gpus)
    count *= int(trainer["num_nodes"])
    if not gpus:
        return Device("CPU", "cpu", count, None)
    about = torch.cuda.get_device_properties(0)
    return Device(about.name, "cuda", count, about.total_memory - _CONTEXT)


@dataclass(frozen=True)
class Speed:
    """How fast a device is.

    Args:
        flops: floating-point operations a second, in a large matrix product.
        bytes: bytes read from its memory a second.
        launch: seconds that an operation on a small tensor takes.
    """

    flops: float
    bytes: float
    launch: float


def measure_speed(device: Device, dtype: torch.dtype, seconds: float = 0.5) -> Speed:
    """Measure this very device.

    Args:
        device: device to measure.
        dtype: dtype of the matrices.
        seconds: rough limit on the duration; it takes longer on a device that is busy with something else.
    """
    start = time.perf_counter()
    large = torch.ones(16_000_000, dtype=torch.float32, device=device.kind)
    read = _best_time(large.sum, device)
    small = torch.ones(64, dtype=torch.float32, device=device.kind)
    launch = _best_time(lambda: [small + small for _ in range(100)], device) / 100
    size, fastest = 320, 0.0
    # each product is four times the work of the one before
    while not fastest or time.perf_counter() - start < seconds / 2:
        matrix = torch.ones((size, size), dtype=dtype, device=device.kind)
        fastest = max(fastest, 2 * size**3 / _best_time(partial(torch.mm, matrix, matrix), device))
        size = size * 8 // 5
    return Speed(fastest, large.numel() * 4 / read, launch)


def _best_time(work: Callable[[], object], device: Device) -> float:
    """Shortest of a few runs after a first one, which may have to set things up."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        work()
        if device.kind == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def matrix_dtype(precision: str, element: int) -> torch.dtype:
    """The dtype of a stage's large matrix products.

    Args:
        precision: precision of its trainer.
        element: bytes of a number of its weights.
    """
    if precision.endswith("mixed"):
        return torch.bfloat16 if precision.startswith("bf16") else torch.float16
    return torch.float32 if element == 4 else torch.bfloat16
