"""Second and third phase of pre-training: words for what the vision tower sees, first frozen, then together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from rbft.worlds.scenes import general_scenes
from rbft.worlds.shapes import render
from tools.tiny_vlm.conversations import EVERYTHING, QUESTIONS_FIRST, ask
from tools.tiny_vlm.fast_forward import autocast, encode, loss, to_patches
from tools.tiny_vlm.optim import Optimisers, decay
from tools.tiny_vlm.packing import VISUAL_TOKENS, Packer
from tools.tiny_vlm.progress import Budget
from tools.tiny_vlm.tokenizer import build_tokenizer

RATE, OTHER_RATE = 4e-3, 2.8e-3
JOINT_RATE, JOINT_OTHER_RATE = 1.2e-3, 0.6e-3  # of the vision tower in the joint phase
SINGLE_AT_FIRST, SINGLE = 0.15, 0.35  # share of clips with one object, which have nothing to tell apart
BATCH, BANK = 64, 256  # clips; a bank is drawn at once and used once
QUESTIONS_UNTIL = 0.4  # share of the frozen phase that questions about single objects fill
TURNS = 12  # tried for each clip
# Now and then a system turn stands before everything, so that one does not confuse the model.
SYSTEM_SHARE, SYSTEM_TEXTS = 0.1, ("you are a helpful assistant .", "you describe videos .")


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    frozen: Budget,
    joint: Budget,
    seed: int,
    at: Mapping[float, Callable[[], None]] | None = None,
) -> list[float]:
    """Trains the language model, then all of the model, in place; returns the loss of every step.

    Args:
        model: With a trained vision tower.
        frozen: For the phase with the vision tower as it is.
        joint: For the phase in which it learns along, at a lower rate; in the unit of `frozen`.
        seed: Fixes clips and questions.
        at: What to call once this share of both budgets is used.
    """
    rng = np.random.default_rng([seed, 3])
    packer = Packer(build_tokenizer())
    visual = [(name, p) for name, p in model.named_parameters() if name.startswith("model.visual.")]
    words = [(name, p) for name, p in model.named_parameters() if not name.startswith("model.visual.")]
    optimisers = Optimisers(words, RATE, OTHER_RATE)
    visual_optimisers = Optimisers(visual, JOINT_RATE, JOINT_OTHER_RATE)
    share = frozen.amount / (frozen.amount + joint.amount)
    due = dict(sorted((at or {}).items()))
    losses: list[float] = []
    for budget in (frozen, joint):
        both = budget is joint
        while (progress := budget.progress) < 1:
            overall = share + (1 - share) * progress if both else share * progress
            while due and overall >= next(iter(due)):
                due.pop(next(iter(due)))()
            at_first = not both and progress < QUESTIONS_UNTIL
            weights, single = (QUESTIONS_FIRST, SINGLE_AT_FIRST) if at_first else (EVERYTHING, SINGLE)
            scenes = general_scenes(rng, BANK, single=single, empty=0.06)
            frames = torch.from_numpy(render(scenes, rng))
            for start in range(0, BANK, BATCH):
                clips = range(start, start + BATCH)
                system = str(rng.choice(SYSTEM_TEXTS)) if rng.random() < SYSTEM_SHARE else None
                packed = packer.pack([ask(scenes, clip, rng, weights, TURNS) for clip in clips], system=system)
                with autocast():
                    with torch.set_grad_enabled(both):
                        tokens, _ = encode(model, to_patches(frames[start : start + BATCH]))
                    value = loss(model, packed, tokens.unflatten(0, (BATCH, VISUAL_TOKENS)))
                overall = share + (1 - share) * budget.progress if both else share * budget.progress
                factor = decay(overall, hold=0.55, floor=0.03)
                value.backward()
                optimisers.step(factor)
                if both:
                    visual_optimisers.step(factor)
                budget.count(value.item())
        losses += budget.losses
    for act in due.values():
        act()
    return losses
