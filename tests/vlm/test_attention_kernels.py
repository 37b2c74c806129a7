"""A mask keeps a GPU from its fastest attention, and has keys and values repeated: which passes come with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES, TINY
from tests.support.models import Loaded, load, make_clip

from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.shared_prefix import answer_logits

QUESTION = "what is it ?"


@contextmanager
def masked(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Queries and heads of keys of each call of attention in the language model that comes with a mask."""
    found: list[tuple[int, int]] = []
    reading: list[bool] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> torch.Tensor:
        if reading and attn_mask is not None:
            found.append((query.shape[2], key.shape[1]))
        return attention(query, key, value, attn_mask=attn_mask, **kwargs)

    decoder = loaded.vlm.base.get_decoder()
    hooks = [
        decoder.register_forward_pre_hook(lambda *_: reading.append(True)),
        decoder.register_forward_hook(lambda *_: reading.clear()),
    ]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    yield found
    for hook in hooks:
        hook.remove()


def batch(loaded: Loaded, answers: int) -> Batch:
    """Two clips of unlike length with so many answers each."""
    targets = [loaded.target(QUESTION, text) for text in ("it jumps", "it jumps high")[:answers]]
    prompts = [loaded.inputs(QUESTION, make_clip(seed, frames)) for seed, frames in enumerate((8, 4))]
    return collate([[Item(0, prompt, target) for target in targets] for prompt in prompts])


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_and_single_answers_come_without_one(
    name: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(family_folder(name))
    rows = batch(loaded, 1)
    with masked(loaded, monkeypatch) as found, torch.no_grad():
        loaded.vlm.prefix(rows.prompts)
        answer_logits(loaded.vlm, rows)
    assert found == []


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm"])
def test_trees_and_several_answers_come_with_one(
    name: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(family_folder(name))
    rows, labels = batch(loaded, 2), [loaded.target(QUESTION, text) for text in ("jumps", "jumps high", "falls down")]
    with masked(loaded, monkeypatch) as found, torch.no_grad():
        LabelScorer(tuple(labels))(loaded.vlm, rows.prompts[::2])
    shortest = min(len(prompt.ids) for prompt in rows.prompts)
    assert len(found) == TINY.layers
    assert max(queries for queries, _ in found) < shortest, "the labels alone, not what stands before them"
    with masked(loaded, monkeypatch) as found, torch.no_grad():
        answer_logits(loaded.vlm, rows)
    assert len(found) == TINY.layers
    with masked(loaded, monkeypatch) as found, torch.no_grad():
        generate(loaded.vlm, rows.prompts[::2], max_new_tokens=3)
    heads = loaded.vlm.base.config.get_text_config().num_key_value_heads
    assert {keys for _, keys in found} == {heads}, "for a single query none are repeated"
