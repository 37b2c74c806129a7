"""The best labels are those of scoring all, with their scores; every other is bounded; few nodes are read."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from tests.support.models import Loaded, make_clip
from torch import Tensor

from rbft.vlm.best_labels import BestLabels
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM

QUESTION = "Which action does this video show?"
WORDS = ("push", "a person", "jumps", "over"), ("the door", "a wall", "it"), ("", " quickly", " again and again")
LABELS = ["a", "push", *(f"{one} {two}{three}" for one, two, three in product(*WORDS))]


def scorer_of(loaded: Loaded, **settings) -> LabelScorer:
    return LabelScorer(tuple(loaded.target(QUESTION, label) for label in LABELS), **settings)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("kind", ["sum", "byte", "prior"])
def test_the_best_are_those_of_all(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, count: int, kind: str):
    scorer = scorer_of(loaded, lengths=tuple(float(len(label)) for label in LABELS) if kind == "byte" else ())
    if kind == "prior":
        scorer = replace(scorer, prior=torch.randn(len(LABELS), generator=torch.Generator().manual_seed(0)) * 5)
    prompts = [loaded.inputs(QUESTION, make_clip(number, frames)) for number, frames in ((0, 8), (1, 4))]
    expected = scorer(loaded.vlm, prompts)
    fed: list[int] = []
    plain = VLM.continue_prefix

    def count_nodes(self, cache, mask, ids, positions) -> Tensor:
        fed.append(ids.numel())
        return plain(self, cache, mask, ids, positions)

    monkeypatch.setattr(VLM, "continue_prefix", count_nodes)
    found = BestLabels(scorer, count)(loaded.vlm, prompts)
    for row in range(2):
        best = expected[row].topk(count)
        assert found[row].topk(count).indices.tolist() == best.indices.tolist()
        torch.testing.assert_close(found[row].topk(count).values, best.values, rtol=1e-5, atol=1e-4)
    assert bool((found >= expected - 1e-4).all()), "bounds from above"
    best, least = expected.softmax(-1), found.softmax(-1)
    top = expected.argmax(1)
    assert bool((least.gather(1, top[:, None]) <= best.gather(1, top[:, None]) + 1e-5).all())
    nodes = sum(len(tree) for _, tree in scorer._trees)
    assert 0 < sum(fed) < 2 * nodes, "not all of them"


def test_few_labels_and_kernels_without_masks_are_scored_whole(loaded: Loaded, monkeypatch: pytest.MonkeyPatch):
    scorer = scorer_of(loaded)
    prompt = [loaded.inputs(QUESTION, make_clip(2, 4))]
    assert torch.equal(BestLabels(scorer, len(LABELS))(loaded.vlm, prompt), scorer(loaded.vlm, prompt))
    monkeypatch.setattr(VLM, "takes_tree_masks", False)
    expected = scorer(loaded.vlm, prompt)
    assert torch.equal(BestLabels(scorer, 2)(loaded.vlm, prompt), expected)
