"""A last layer that is computed where its output is read gives what a whole one gives, for less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import Loaded, load, make_clip
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rbft.vlm.batch import PromptInputs, pad_rows
from rbft.vlm.cost import model_size
from rbft.vlm.last_layer import read_at
from rbft.vlm.tuning import FullFineTuning, LoRA

QUESTIONS = ("Which action?", "Explain step by step what happens.", "Name it")
ANSWERS = ("archery", "the person jumps over a wooden door", "a b c")
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=8), make_clip(2, frames=5))


def rows_of(loaded: Loaded) -> tuple[list[PromptInputs], list[Tensor]]:
    prompts = [loaded.inputs(question, clip) for question, clip in zip(QUESTIONS, CLIPS, strict=True)]
    return prompts, [loaded.target(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]


def whole_log_probs(loaded: Loaded, prompts: list[PromptInputs], targets: list[Tensor]) -> Tensor:
    """Of the target tokens, by transformers alone: every layer whole, padding masked."""
    vlm = loaded.vlm
    rows, visual = pad_rows(prompts, targets, vlm.pad_id), vlm.encode(prompts)
    positions = vlm.positions(rows, visual)
    output: Any = vlm.base(
        **vlm.arguments(rows, visual), attention_mask=rows.mask, position_ids=positions, use_cache=False
    )
    log_probs = output.logits.log_softmax(-1)
    found = []
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        before = len(prompt.ids) - 1
        found.append(log_probs[row, before : before + len(target)].gather(1, target.unsqueeze(1)).squeeze(1))
    return torch.cat(found)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tuning", [FullFineTuning(), LoRA(dropout=0.0)], ids=["full", "lora"])
def test_results_and_gradients_are_those_of_whole_layers(
    folder: Path, attention: str, checkpointing: bool, tuning: FullFineTuning | LoRA
) -> None:
    loaded = load(folder, tuning)
    loaded.vlm.base.set_attn_implementation(attention)
    if checkpointing:
        loaded.vlm.base.activation_checkpointing_enable({"use_reentrant": False})
        loaded.vlm.train()
    with torch.no_grad():
        for name, value in loaded.vlm.named_parameters():
            if "lora_B" in name:  # zero at first, and no gradient would reach lora_A
                value.normal_(std=0.02)
    prompts, targets = rows_of(loaded)
    expected = whole_log_probs(loaded, prompts, targets)
    wanted = gradients(loaded.vlm, -expected.sum() / 10)
    found, _ = loaded.vlm.target_log_probs(prompts, targets)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    again = gradients(loaded.vlm, -found.sum() / 10)
    assert again.keys() == wanted.keys()
    for name, gradient in again.items():
        assert float((gradient - wanted[name]).abs().max()) < 1e-5, name


def operations(act: Callable[[], object]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


def test_what_is_left_out_is_what_the_cost_says(folder: Path, loaded: Loaded) -> None:
    prompts, targets = rows_of(loaded)
    vlm, size = loaded.vlm, model_size(str(folder), None, "float32", None, LoRA())
    prompts = vlm.with_features(prompts)
    rows, visual = pad_rows(prompts, targets, vlm.pad_id), vlm.encode(prompts)
    kept, places = sum(map(len, targets)), rows.ids.numel()
    whole = operations(lambda: whole_log_probs(loaded, prompts, targets)) - int(size.head_flops(places))
    assert size.read_flops(100, 100) - size.read_flops(100, 90) == 2 * 10 * size.language.own
    narrow = operations(lambda: vlm.target_log_probs(prompts, targets, visual)) - int(size.head_flops(kept))
    assert whole - narrow == 2 * (places - kept) * size.language.own > 0
    # and of a prompt that is read for what comes next, all but its last token
    read = pad_rows(prompts, None, vlm.pad_id).ids.numel()
    alone = [prompt.ids[-1:] for prompt in prompts]
    bare = [replace(prompt, ids=prompt.ids[:-1]) for prompt in prompts]
    bare = [prompt if prompt.types is None else replace(prompt, types=prompt.types[:-1]) for prompt in bare]
    whole = operations(lambda: whole_log_probs(loaded, bare, alone)) - int(size.head_flops(read))
    narrow = operations(lambda: vlm.prefix(prompts, visual)) - int(size.head_flops(len(prompts)))
    assert whole - narrow == 2 * (read - len(prompts)) * size.language.own


def test_rows_that_are_trained_on_need_no_mask(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, targets = rows_of(loaded)
    visual = loaded.vlm.encode(prompts)
    masks: list[object] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def attended(*inputs: Any, **settings: Any) -> Tensor:
        masks.append(settings["attn_mask"])
        return attend(*inputs, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    loaded.vlm.target_log_probs(prompts, targets, visual)
    assert masks and all(mask is None for mask in masks)


def test_the_model_is_left_as_it_was(loaded: Loaded) -> None:
    decoder: Any = loaded.vlm.base.get_decoder()
    last = decoder.layers[-1]
    last.gradient_checkpointing = True
    keep = torch.ones((1, 2), dtype=torch.bool)
    try:
        with pytest.raises(KeyError), read_at(decoder, keep):
            assert last.mlp._forward_hooks and not last.gradient_checkpointing
            raise KeyError
        assert last.gradient_checkpointing
    finally:
        del last.gradient_checkpointing
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in last.modules())


def test_parts_of_other_names_are_computed_whole() -> None:
    class Layer(nn.Module):
        gradient_checkpointing = False

        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Linear(3, 3)  # experts would mix tokens in it

        def forward(self, hidden: Tensor) -> Tensor:
            return self.mlp(hidden)

    decoder, plain = nn.Module(), nn.Linear(3, 3)
    decoder.layers = nn.ModuleList([Layer()])
    hidden = torch.rand(1, 4, 3)
    with read_at(decoder, torch.zeros((1, 4), dtype=torch.bool)):
        assert torch.equal(decoder.layers[-1](hidden), decoder.layers[-1].mlp(hidden))
    with read_at(plain, torch.zeros((1, 4), dtype=torch.bool)):  # no layers at all
        assert plain(hidden).shape == hidden.shape
