"""The likeliest labels of a large closed set, exactly, without scoring all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rbft.vlm.batch import PromptInputs, Rows
from rbft.vlm.finite import require_finite
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.token_tree import TokenTree


@dataclass(frozen=True)
class BestLabels:
    """Scores the likeliest labels as `LabelScorer` does, and bounds the others from above.

    The log-likelihood of a label only falls with each of its tokens, so what is known of its first tokens bounds it
    (best-first search with an admissible bound: Hart, Nilsson and Raphael, 1968). Labels that could still be among the
    best are read on, the most promising first, until no other can enter. So every label beyond the best has a score
    that is at least its own and at most the last of the best: probabilities made of the scores have the best in order,
    and none of the best above what it would be among all scores.

    Args:
        scorer: The scorer of all labels.
        count: How many of the best are scored exactly.
        at_once: Labels that are read on in a pass.
    """

    scorer: LabelScorer
    count: int = 5
    at_once: int = 8

    @property
    def prior(self) -> Tensor | None:
        """(C,) subtracted from the scores."""
        return self.scorer.prior

    @torch.no_grad()
    def __call__(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        """Scores (B, C) in float32, exact for the `count` best of each row.

        Raises:
            ModelError: The scores after a prompt are not finite.
        """
        if not vlm.takes_tree_masks or len(self.scorer.label_ids) <= self.count:
            return self.scorer(vlm, prompts)
        scores = torch.stack([self._search(vlm, prompt) for prompt in prompts])
        require_finite(scores, prompts, "the scores of the classes", vlm)
        return scores

    @cached_property
    def _tree(self) -> TokenTree:
        return TokenTree.of(self.scorer.label_ids)

    @cached_property
    def _lineage(self) -> Tensor:
        return self._tree.lineage()

    def _search(self, vlm: VLM, prompt: PromptInputs) -> Tensor:
        """Scores (C,) after one prompt."""
        cache, first, following, rows = vlm.prefix([prompt])
        labels = self.scorer.label_ids
        known = [0] * len(labels)  # tokens of each label whose probability is known
        sums = [0.0] * len(labels)
        read: list[int] = []  # nodes in the cache, in its order

        def take(node: int, log_probs: Tensor) -> None:
            """Take over what is expected after a node for the labels that go on there."""
            after = self._after[node]
            values = log_probs[torch.tensor([token for _, _, token in after], device=log_probs.device)].tolist()
            for (label, place, _), value in zip(after, values, strict=True):
                if place == known[label]:
                    known[label] += 1
                    sums[label] += value

        take(-1, first[0])
        while True:
            bounds = self._bounds(sums)
            open_ = [label for label in range(len(labels)) if known[label] < len(labels[label])]
            best = sorted((bounds[i] for i in range(len(labels)) if known[i] == len(labels[i])), reverse=True)
            least = best[self.count - 1] if len(best) >= self.count else -float("inf")
            left = sorted((label for label in open_ if bounds[label] > least), key=lambda i: -bounds[i])
            if not left:
                return torch.tensor(bounds, device=first.device)
            nodes = self._unread(left[: self.at_once], set(read))
            read += nodes
            logits = vlm.continue_prefix(cache, *self._fed(vlm, rows, following, read, len(nodes)))[0]
            for node, log_probs in zip(nodes, logits.float().log_softmax(-1), strict=True):
                take(node, log_probs)

    @cached_property
    def _after(self) -> dict[int, list[tuple[int, int, int]]]:
        """For each node the labels that go on there: (label, place of the token, token)."""
        after: dict[int, list[tuple[int, int, int]]] = {}
        for label, (ids, sources) in enumerate(zip(self.scorer.label_ids, self._tree.sources, strict=True)):
            for place, (token, node) in enumerate(zip(ids.tolist(), sources.tolist(), strict=True)):
                after.setdefault(node, []).append((label, place, token))
        return after

    def _bounds(self, sums: Sequence[float]) -> list[float]:
        """Most that each label can score, from what is known of its tokens."""
        lengths = self.scorer.lengths or (1.0,) * len(sums)
        prior = [0.0] * len(sums) if self.scorer.prior is None else self.scorer.prior.tolist()
        return [value / length - less for value, length, less in zip(sums, lengths, prior, strict=True)]

    def _unread(self, labels: Sequence[int], read: set[int]) -> list[int]:
        """Nodes of some labels that are not read, each after those on its way."""
        nodes = {node for label in labels for node in self._tree.sources[label].tolist()} - read - {-1}
        return sorted(nodes)  # a parent comes before its children

    def _fed(self, vlm: VLM, rows: Rows, following: Tensor, read: Sequence[int], count: int) -> tuple[Any, ...]:
        """Mask, tokens and positions of the last `count` of the nodes that are read."""
        device, places = vlm.device, torch.tensor(read)
        new = places[-count:]
        prefix = rows.mask.bool().unsqueeze(1).expand(-1, count, -1)
        visible = torch.cat([prefix, self._lineage[new][:, places].unsqueeze(0).to(device)], dim=2)
        positions = following.unsqueeze(1) + self._tree.depths[new].to(device)
        return vlm.attention_mask(visible), self._tree.ids[new].unsqueeze(0).to(device), positions
