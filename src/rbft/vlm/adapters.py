"""Models with and without adapters, named and told apart without importing peft and transformers, which takes seconds.

A module with classes that experiment files name takes the two types from here: the parser of those files carries out
what stands under `TYPE_CHECKING` in it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel as PeftModel
    from transformers import PreTrainedModel as PreTrainedModel
else:
    PeftModel = PreTrainedModel = nn.Module


def has_adapters(model: nn.Module) -> TypeGuard[PeftModel]:
    """Whether a model was wrapped by peft; none was where that has not been imported."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)
