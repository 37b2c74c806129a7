"""Reading what leaves the frozen layers gives the loss and the gradients of computing it, in every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.families import FAMILIES, RECIPES
from tests.support.models import Loaded, load, make_clip
from torch import Tensor

from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.feature_cache import feature_key
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.lower_layers import LowerLayers, keep_states, lower_layers_of
from rbft.vlm.shared_prefix import answer_logits
from rbft.vlm.state_cache import StateCache
from rbft.vlm.tuning import FullFineTuning, LoRA

QUESTIONS = ("Explain step by step what happens.", "Explain it in a word")
ANSWERS = ("the person jumps over a wooden door", "archery")
# their layers hand on which tokens the next ones look at, beside what is kept
HAND_ON_MORE = {"glm5_next"}
OTHERS = sorted(set(RECIPES) - set(FAMILIES) - HAND_ON_MORE)


def batch_of(loaded: Loaded, *, packed: bool) -> Batch:
    clips = []
    for number, clip in enumerate((make_clip(0, frames=4), make_clip(1, frames=8))):
        items = []
        for question, answer in list(zip(QUESTIONS, ANSWERS, strict=True))[: 2 if packed else 1]:
            prompt = replace(loaded.inputs(question, clip), key=feature_key(str(number)))
            if items:
                prompt = replace(prompt, vision=items[0].prompt.vision)
            items.append(Item(number, prompt, loaded.target(question, answer), normalizer=10.0))
        clips.append(items)
    return collate(clips)


def lower_of(loaded: Loaded) -> LowerLayers:
    lower = lower_layers_of(loaded.vlm.model)
    assert lower is not None and lower.first >= 1
    return lower


def step(loaded: Loaded, batch: Batch, lower: LowerLayers) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities and gradients of a training step, with dropout in the adapters."""
    loaded.vlm.train()
    lower.rest()
    loaded.vlm.zero_grad()
    torch.manual_seed(3)
    log_probs = answer_logits(loaded.vlm, batch).log_probs()
    (-log_probs.sum() / batch.normalizer).backward()
    return log_probs.detach(), {n: p.grad.clone() for n, p in loaded.vlm.named_parameters() if p.grad is not None}


def same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=2e-5)
    assert one[1].keys() == other[1].keys() and one[1]
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=2e-5, msg=name)


def tuned(folder: Path) -> Loaded:
    # of the experts' family of GLM-4.5V PEFT takes no adapters in some layers only
    whole = folder.name == "glm4v_moe"
    loaded = load(folder, FullFineTuning(layers=1) if whole else LoRA(rank=2, dropout=0.1, layers=1))
    for name, parameter in loaded.vlm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return loaded


def check(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = lower_of(loaded)
    computed: list[int] = []
    for number, layer in enumerate(lower._layers):
        part = next(module for name, module in layer.named_modules() if "norm" in name)
        part.register_forward_hook(lambda *_, number=number: computed.append(number))
    for packed in (False, True):
        batch = batch_of(loaded, packed=packed)
        loaded.vlm.states = None
        expected = step(loaded, batch, lower)
        loaded.vlm.states = keep_states(lower, StateCache(None, 0, 10**9), loaded.vlm.end_ids[0])
        assert loaded.vlm.states is not None
        computed.clear()
        same(step(loaded, batch, lower), expected)
        assert computed
        computed.clear()
        same(step(loaded, batch, lower), expected)
        assert computed == [], "nothing below is computed again"
        # the same rows in another order and alone
        loaded.vlm.eval()
        with torch.no_grad():
            alone = [answer_logits(loaded.vlm, collate_one(batch, clip)).log_probs() for clip in (1, 0)]
            loaded.vlm.states = None
            whole = [answer_logits(loaded.vlm, collate_one(batch, clip)).log_probs() for clip in (1, 0)]
        for one, other in zip(alone, whole, strict=True):
            # where answers about a clip have rows of their own, they are filled up to one length unless computed alone
            single = loaded.vlm.takes_packed_rows or not packed
            assert torch.equal(one, other) if single else torch.allclose(one, other, rtol=1e-5, atol=2e-5)
        assert computed


def collate_one(batch: Batch, clip: int) -> Batch:
    rows = [row for row, number in enumerate(batch.clips) if number == clip]
    return replace(
        batch,
        indices=tuple(batch.indices[row] for row in rows),
        prompts=tuple(batch.prompts[row] for row in rows),
        targets=tuple(batch.targets[row] for row in rows),
        weights=batch.weights[rows],
        clips=tuple(batch.clips[row] for row in rows),
    )


def test_a_step_is_the_same_with_what_was_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tuned(folder), monkeypatch)


@pytest.mark.parametrize("family", sorted(HAND_ON_MORE))
def test_nothing_is_kept_where_layers_hand_on_more(family: str, family_folder: Callable[[str], Path]) -> None:
    loaded = tuned(family_folder(family))
    with pytest.warns(UserWarning, match="nothing is kept of those"):
        states = keep_states(lower_of(loaded), StateCache(None, 0, 10**9), loaded.vlm.end_ids[0])
    assert states is None


def test_a_lack_of_memory_is_not_taken_for_a_family_that_cannot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tuned(folder)
    lower = lower_of(loaded)

    def full(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(lower, "of_row", full)
    with pytest.raises(torch.OutOfMemoryError):
        lower.can_be_replaced(loaded.vlm.end_ids[0])


def test_labels_are_scored_the_same_with_what_was_kept(folder: Path) -> None:
    loaded = tuned(folder)
    lower = lower_of(loaded)
    labels = tuple(loaded.target(QUESTIONS[0], text) for text in ("push", "push up", "a", *ANSWERS))
    scorer = LabelScorer(labels)
    batch = batch_of(loaded, packed=False)
    expected = scorer(loaded.vlm, batch.prompts)
    cache = StateCache(None, 0, 10**9)
    loaded.vlm.states = keep_states(lower, cache, loaded.vlm.end_ids[0])
    first = scorer(loaded.vlm, batch.prompts)
    lower._layers[0].mlp.register_forward_hook(lambda *_: pytest.fail("a lower layer was computed"))
    kept = len(cache._held)
    again = scorer(loaded.vlm, batch.prompts)
    assert torch.equal(again, first)
    for found in (first, again):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert len(cache._held) == kept == 2, "both clips, and nothing twice"
    with pytest.raises(pytest.fail.Exception, match="a lower layer was computed"):
        scorer(loaded.vlm, [replace(prompt, key=None) for prompt in batch.prompts])


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_other_families_too(
    family: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tuned(family_folder(family)), monkeypatch)
