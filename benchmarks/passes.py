"""How much processor time the passes of the model took: encoding, forward and backward, and nothing around them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.common import cpu_seconds

from rbft.vlm.lower_layers import LowerLayers
from rbft.vlm.model import VLM

# none of them calls another
_PASSES = (
    (VLM, "_encode_one"),
    (VLM, "read"),
    (VLM, "continue_prefix"),
    (LowerLayers, "of_row"),
    (torch.Tensor, "backward"),
)


@contextmanager
def seconds_of_passes() -> Iterator[Callable[[], float]]:
    """While it lasts the model's passes are timed; gives what returns their seconds until then."""
    spent = 0.0

    def timed(act: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(act)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            begun = cpu_seconds()
            try:
                return act(*args, **kwargs)
            finally:
                spent += cpu_seconds() - begun

        return call

    with ExitStack() as stack:
        for owner, name in _PASSES:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield lambda: spent
