"""How much memory a computation needs at once: the most that its tensors took together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(compute: Callable[[], object], device: str = "cpu") -> int:
    """Most bytes that tensors made by `compute` took at one time, beside those that were there before.

    On a CPU the sum over all allocations and releases that torch's profiler sees, at its highest: unlike the memory of
    the process it knows nothing of what the allocator keeps back. On a GPU the allocator's own count.

    Args:
        compute: What is measured; what it returns is let go.
        device: Where its tensors are.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        compute()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        compute()
    results = recorded.profiler.kineto_results if recorded.profiler is not None else None
    if results is None:
        raise RuntimeError("torch's profiler recorded nothing")
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda found: found[0]):
        held += change
        peak = max(peak, held)
    return peak
