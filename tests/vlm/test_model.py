"""The wrapper gives, for batches of clips of any length, what full transformers passes over single clips give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.models import Loaded, Plain, load, make_clip
from torch import Tensor

from rbft.vlm.batch import PromptInputs
from rbft.vlm.generation import generate
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import FullFineTuning, LoRA

QUESTIONS = ("Which action?", "Explain step by step what happens.", "Name it")
ANSWERS = ("archery", "the person jumps over a wooden door", "a b c")
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=8), make_clip(2, frames=5))
# 16 frames over 48 s: times that reach far beyond the number of tokens
SLOW = make_clip(3, frames=16, gap=75)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Plain:
    return Plain(folder)


@pytest.fixture(scope="module")
def prompts(loaded: Loaded) -> list[PromptInputs]:
    return [loaded.inputs(question, clip) for question, clip in zip(QUESTIONS, CLIPS, strict=True)]


@pytest.fixture(scope="module")
def targets(loaded: Loaded) -> list[Tensor]:
    return [loaded.target(question, answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]


def by_row(log_probs: Tensor, rows: Tensor, count: int) -> list[Tensor]:
    return [log_probs[rows == row] for row in range(count)]


@torch.no_grad()
def test_log_probs_of_a_batch_are_those_of_full_passes(loaded, plain, prompts, targets):
    log_probs, rows = loaded.vlm.target_log_probs(prompts, targets)
    assert len({len(prompt.ids) + len(target) for prompt, target in zip(prompts, targets, strict=True)}) > 1
    for row, found in enumerate(by_row(log_probs, rows, 3)):
        expected = plain.log_probs(QUESTIONS[row], CLIPS[row], targets[row])
        assert found.shape == expected.shape
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        assert float(found.sum()) == pytest.approx(float(expected.sum()), abs=1e-4)


@torch.no_grad()
def test_features_computed_once_give_the_same(loaded, prompts, targets):
    visual = loaded.vlm.encode(prompts)
    given = set(visual), set(visual["mm_encoder_outputs"])
    fresh, _ = loaded.vlm.target_log_probs(prompts, targets)
    for _ in range(2):  # features must survive being fed
        again, _ = loaded.vlm.target_log_probs(prompts, targets, visual)
        assert torch.equal(again, fresh)
    assert (set(visual), set(visual["mm_encoder_outputs"])) == given


@torch.no_grad()
def test_other_frames_give_another_result(loaded, prompts, targets):
    clips = (CLIPS[0], make_clip(9, frames=8), CLIPS[2])
    changed = [loaded.inputs(question, clip) for question, clip in zip(QUESTIONS, clips, strict=True)]
    before, rows = loaded.vlm.target_log_probs(prompts, targets)
    after, _ = loaded.vlm.target_log_probs(changed, targets)
    differences = by_row((before - after).abs(), rows, 3)
    assert float(differences[1].max()) > 0.01
    assert max(float(differences[0].max()), float(differences[2].max())) < 1e-4, "a clip belongs to its own row"


@torch.no_grad()
def test_order_of_frames_matters(loaded, targets):
    first, second = make_clip(1, frames=8), make_clip(1, frames=8)
    second.frames.copy_(first.frames.flip(0))
    scores = [
        loaded.vlm.target_log_probs([loaded.inputs(QUESTIONS[1], clip)], targets[1:2])[0] for clip in (first, second)
    ]
    assert float((scores[0] - scores[1]).abs().max()) > 0.01


@torch.no_grad()
def test_long_times_between_frames_keep_log_probs(loaded, plain, targets):
    # beside a short clip, after generation and after a pass over other rows: what a model remembers must not leak
    prompts = [loaded.inputs(QUESTIONS[0], CLIPS[0]), loaded.inputs(QUESTIONS[1], SLOW)]
    generate(loaded.vlm, prompts[:1], max_new_tokens=2)
    log_probs, rows = loaded.vlm.target_log_probs(prompts, targets[:2])
    expected = plain.log_probs(QUESTIONS[1], SLOW, targets[1])
    assert log_probs[rows == 1].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


@torch.no_grad()
def test_prefix_and_continuation_are_a_full_pass(loaded, plain, targets):
    prompts = [loaded.inputs(QUESTIONS[0], CLIPS[1]), loaded.inputs(QUESTIONS[0], SLOW)]
    target = targets[1]
    cache, first, positions, rows = loaded.vlm.prefix(prompts)
    fed = target[:-1].repeat(2, 1)
    mask = torch.cat([rows.mask, torch.ones_like(fed)], dim=1)
    steps = positions.unsqueeze(1) + torch.arange(fed.shape[1])
    logits = loaded.vlm.continue_prefix(cache, mask, fed, steps)
    for row, clip in enumerate((CLIPS[1], SLOW)):
        later = logits[row].float().log_softmax(-1).gather(1, target[1:].unsqueeze(1)).squeeze(1)
        found = [float(first[row, target[0]]), *later.tolist()]
        assert found == pytest.approx(plain.log_probs(QUESTIONS[0], clip, target).tolist(), abs=1e-4)


def test_every_special_token_is_banned_but_the_end(loaded):
    ids = loaded.processor.special_ids
    tokenizer = loaded.processor._processor.tokenizer
    # what a processor puts frames in the place of need be no token (SmolVLM's <video>)
    tokens = set(loaded.processor.special_tokens) & set(tokenizer.get_vocab())
    assert set(tokenizer.convert_ids_to_tokens(list(ids))) >= tokens
    assert set(loaded.processor.visual_ids) <= set(ids)


@torch.no_grad()
def test_text_only_prompts_need_no_clip(loaded):
    prompt = loaded.processor.prompt_inputs(Prompt("Which action?", video=False), None)
    assert loaded.vlm.encode([prompt]) == {}
    assert loaded.processor.count_visual_tokens(prompt.ids) == 0
    log_probs, _ = loaded.vlm.target_log_probs([prompt], [loaded.target("Which action?", "archery")])
    assert log_probs.isfinite().all()
    assert len(generate(loaded.vlm, [prompt], max_new_tokens=2)[0][0]) > 0


@pytest.mark.parametrize(
    ("tuning", "frozen"),
    [
        (LoRA(), True),
        (FullFineTuning(), True),
        (LoRA(projector="train"), False),
        (FullFineTuning(language="frozen", vision="train"), False),
    ],
)
def test_gradients_reach_the_vision_side_only_where_it_is_trained(folder, prompts, targets, tuning, frozen):
    vlm = load(folder, tuning).vlm
    assert vlm.vision_frozen is frozen
    log_probs, _ = vlm.target_log_probs(prompts[:1], targets[:1])
    log_probs.sum().backward()
    reached = {name for name, p in vlm.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0}
    assert reached
    assert reached <= {name for name, p in vlm.named_parameters() if p.requires_grad}
    inside = {name for name in reached if any(word in name for word in ("visual", "vision", "projector", "connector"))}
    assert bool(inside) is not frozen
