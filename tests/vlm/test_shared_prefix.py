"""Several answers about one clip in one row give the loss and the gradients of a row for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, load, make_clip
from torch import Tensor

from rbft.vlm.batch import PromptInputs
from rbft.vlm.model import VLM
from rbft.vlm.shared_prefix import pack, packed_logits
from rbft.vlm.tuning import FullFineTuning

# several answers to one question, and another question about the same clip, as the joint objective has
QUESTIONS = ("Explain step by step what happens.",) * 3 + ("Explain it in a word",)
ANSWERS = ("the person jumps over a door", "the person jumps over a wooden door", "a b c", "archery")
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=16, gap=75))


def rows(loaded: Loaded, clip: int, count: int = 4) -> tuple[list[PromptInputs], list[Tensor]]:
    prompts = [loaded.inputs(question, CLIPS[clip]) for question in QUESTIONS[:count]]
    targets = [loaded.target(q, a) for q, a in zip(QUESTIONS[:count], ANSWERS[:count], strict=True)]
    return prompts, targets


def gradients(vlm: VLM, log_probs: Tensor, weights: Tensor) -> dict[str, Tensor]:
    vlm.zero_grad()
    (-(log_probs * weights).sum() / 10).backward()
    return {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_are_separate_rows(folder: Path, attention: str) -> None:
    loaded = load(folder, FullFineTuning())
    loaded.vlm.base.set_attn_implementation(attention)
    answer_weights = torch.tensor([1.0, 0.5, 2.0, 0.25])
    packed, plain_log_probs, plain_weights = [], [], []
    for clip in (0, 1):
        prompts, targets = rows(loaded, clip)
        found = pack(prompts, targets, loaded.processor.visual_ids)
        assert found is not None
        packed.append(found)
        log_probs, owners = loaded.vlm.target_log_probs(prompts, targets)
        plain_log_probs.append(log_probs)
        plain_weights.append(answer_weights[owners])
    expected = gradients(loaded.vlm, torch.cat(plain_log_probs), torch.cat(plain_weights))
    logits, owner = packed_logits(loaded.vlm, packed)
    log_probs, row = logits.log_probs(), logits.rows
    assert log_probs.tolist() == pytest.approx(torch.cat(plain_log_probs).tolist(), abs=1e-5)
    counts = [len(rows(loaded, clip)[1][i]) for clip in (0, 1) for i in range(4)]
    assert torch.bincount(4 * row + owner).tolist() == counts
    again = gradients(loaded.vlm, log_probs, answer_weights[owner])
    assert again.keys() == expected.keys()
    for name, gradient in again.items():
        assert float((gradient - expected[name]).abs().max()) < 1e-5, name


def test_the_clip_stands_in_the_row_once(loaded: Loaded) -> None:
    prompts, targets = rows(loaded, 0)
    found = pack(prompts, targets, loaded.processor.visual_ids)
    assert found is not None
    longest = max(len(prompt.ids) for prompt in prompts)
    separate = sum(len(p.ids) + len(t) for p, t in zip(prompts, targets, strict=True))
    assert len(found.prefix.ids) + len(found.tree) < longest + sum(map(len, targets)) + 40 < separate
    count = loaded.processor.count_visual_tokens
    assert count(found.prefix.ids) == count(prompts[0].ids)
    assert count(found.tree.ids) == 0


def test_one_answer_is_a_row_of_its_own(loaded: Loaded) -> None:
    prompts, targets = rows(loaded, 1, count=1)
    found = pack(prompts, targets, loaded.processor.visual_ids)
    assert found is not None
    with torch.no_grad():
        log_probs = packed_logits(loaded.vlm, [found])[0].log_probs()
        expected, _ = loaded.vlm.target_log_probs(prompts, targets)
    assert log_probs.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_questions_that_differ_before_the_clip_ends_cannot_share_it(loaded: Loaded) -> None:
    prompts, targets = rows(loaded, 0, count=2)
    other = loaded.inputs(QUESTIONS[0], CLIPS[1])
    assert pack([prompts[0], other], targets, loaded.processor.visual_ids) is None
