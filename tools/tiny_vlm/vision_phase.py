"""First phase of pre-training: the vision tower learns to tell what is where, from dense targets."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from rbft.worlds.scenes import FIELD, NUM_STEPS, general_scenes
from rbft.worlds.shapes import render
from tools.tiny_vlm.dense import DenseHeads, dense_targets
from tools.tiny_vlm.fast_forward import autocast, encode, to_patches
from tools.tiny_vlm.optim import Optimisers, decay
from tools.tiny_vlm.progress import Budget

RATE, OTHER_RATE = 4e-3, 2.4e-3
BATCH, BANK = 64, 256  # clips; a bank is drawn at once and used once
FEATURE_RMS = 0.7


def train_vision(model: Qwen2_5_VLForConditionalGeneration, budget: Budget, seed: int) -> list[float]:
    """Trains `model.model.visual` in place until the budget is spent; returns the loss of every step.

    Captions alone are too weak a signal to train the tower from nothing in the time there is: shape and action do not
    get bound to an object. Position, shape and action of every object as targets do that.
    """
    rng = np.random.default_rng([seed, 1])
    heads = DenseHeads(seed)
    optimisers = Optimisers(
        [*model.model.visual.named_parameters(), *((f"head.{n}", p) for n, p in heads.named_parameters())],
        RATE,
        OTHER_RATE,
    )
    while (progress := budget.progress) < 1:
        single = max(0.3, 0.8 - 1.5 * progress)  # one object at first
        scenes = general_scenes(rng, BANK, single=single, empty=0.05)
        frames, targets = torch.from_numpy(render(scenes, rng)), dense_targets(scenes)
        for start in range(0, BANK, BATCH):
            clips = slice(start, start + BATCH)
            pairs = torch.arange(NUM_STEPS // 2 * start, NUM_STEPS // 2 * (start + BATCH))
            with autocast():
                tokens, patches = encode(model, to_patches(frames[clips]))
                losses = heads(tokens, patches, targets.take(pairs))
            total = torch.stack(list(losses.values())).sum()
            total.backward()
            optimisers.step(decay(budget.progress, hold=0.3))
            budget.count(total.item())
    print(f"vision: {_accuracy(model, heads, seed)}", flush=True)
    _rescale_features(model, rng)
    return budget.losses


@torch.no_grad()
def _rescale_features(model: Qwen2_5_VLForConditionalGeneration, rng: np.random.Generator) -> None:
    """Brings the visual tokens to a size that the language model's first layers can work with."""
    tokens, _ = encode(model, to_patches(torch.from_numpy(render(general_scenes(rng, BANK), rng))))
    last = model.model.visual.merger.mlp[-1]
    assert isinstance(last, nn.Linear)
    scale = FEATURE_RMS / tokens.pow(2).mean().sqrt()
    last.weight.mul_(scale)
    last.bias.mul_(scale)


@torch.no_grad()
def _accuracy(model: Qwen2_5_VLForConditionalGeneration, heads: DenseHeads, seed: int) -> dict[str, float]:
    """Accuracy of the heads on held-out clips, and the error of positions in pixels."""
    rng = np.random.default_rng([seed, 2])
    scenes = general_scenes(rng, BANK)
    targets = dense_targets(scenes)
    tokens, _ = encode(model, to_patches(torch.from_numpy(render(scenes, rng))))
    present, shape, place, action = heads.read_tokens(tokens)
    there = targets.present > 0
    known = targets.action >= 0
    figures = {
        "present": ((present > 0) == there).all(1).float().mean(),
        "shape": (shape.argmax(-1) == targets.shape)[there].float().mean(),
        "action": (action.argmax(-1) == targets.action)[known].float().mean(),
        "error_px": FIELD / 2 * (place - targets.place)[there][:, :2].abs().mean(),
    }
    return {name: round(value.item(), 4) for name, value in figures.items()}
