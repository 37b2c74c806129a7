"""`trainer.deterministic` on a GPU: nothing that is computed asks for an operation that torch then refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES
from tests.support.models import Loaded, load, make_clip
from torch.utils._python_dispatch import TorchDispatchMode

from rbft.objectives.base import language_model_loss
from rbft.vlm.batch import Item, collate
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning

# Of the lists of `torch.use_deterministic_algorithms`, those of torch 2.6 to 2.15 that a model could come to use. Not
# among them: interpolation, for which torch itself takes another way where it is asked to be deterministic.
REFUSED = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "nll_loss2d_forward",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "scatter_reduce",
    "scatter_reduce_",
}
OF_FRACTIONS = {"cumsum", "cumsum_", "cumprod", "bincount", "median"}


class Deterministic(TorchDispatchMode):
    """Refuses what a GPU would; a CPU can do all of it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        fractions = any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in args)
        if name in REFUSED or (name in OF_FRACTIONS and fractions):
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        return func(*args, **(kwargs or {}))


def test_the_mode_refuses():
    with Deterministic():
        torch.ones(3, dtype=torch.long).cumsum(0)
        with pytest.raises(RuntimeError, match="cumsum"):
            torch.ones(3).cumsum(0)


def questions(loaded: Loaded) -> Any:
    clips = [make_clip(seed, frames) for seed, frames in enumerate((8, 4))]
    return [loaded.inputs("what is it ?", clip) for clip in clips]


@pytest.mark.parametrize("name", FAMILIES)
def test_scoring_and_writing(name: str, family_folder: Callable[[str], Path]):
    loaded = load(family_folder(name))
    labels = tuple(loaded.target("what is it ?", text) for text in ("jumps", "jumps high", "falls"))
    prompts = questions(loaded)
    with Deterministic():
        scores = LabelScorer(labels)(loaded.vlm, prompts)
        answers = generate(loaded.vlm, prompts, max_new_tokens=4, temperature=1.0, top_p=0.9, samples=2)
    assert scores.shape == (2, 3) and [len(texts) for texts in answers] == [2, 2]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "tuning", [LoRA(rank=2), FullFineTuning(projector="train", vision="train")], ids=["adapters", "whole"]
)
def test_a_step(name: str, tuning: Tuning, family_folder: Callable[[str], Path]):
    loaded = load(family_folder(name), tuning)
    loaded.vlm.train()
    targets = [loaded.target("what is it ?", text) for text in ("it jumps", "it jumps high")]
    clips = [[Item(0, prompt, target) for target in targets] for prompt in questions(loaded)]
    for rows in (clips, [clip[:1] for clip in clips]):  # several answers a clip in one row, and a row for each
        with Deterministic():
            language_model_loss(loaded.vlm, collate(rows)).backward()
    assert any(parameter.grad is not None for parameter in loaded.vlm.parameters())
