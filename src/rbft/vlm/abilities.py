"""What a family of models can do, asked of its configuration and its loaded model instead of its name."""

from __future__ import annotations

from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DummyLayer, DynamicLayer


def sees_every_token(config: PreTrainedConfig) -> bool:
    """Whether every layer of a language model attends to all tokens before, and so can be told which are padding.

    A shorter prompt of a batch has padding between its last token and what is written behind it. Full attention is
    told to skip that. A layer with a window counts it as tokens, and one with a running state reads it.

    Args:
        config: Of the whole model.
    """
    layers = DynamicCache(config=config).layers
    # by the very class: layers with a window, an index or a state inherit from the plain one
    return all(type(layer) in (DynamicLayer, DummyLayer) for layer in layers)
