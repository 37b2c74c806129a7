"""Log-likelihood of every label of a closed set behind a video prompt that is read once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbft.vlm.batch import PromptInputs
from rbft.vlm.model import VLM


@dataclass(frozen=True)
class LabelScorer:
    """Scores a closed set of labels.

    The prompt is read once into a key-value cache; the cache is repeated for the labels, and all labels of a clip
    are read in one pass behind it. A label's score is the sum of the log-probabilities of its tokens and of the end
    of turn, so a label that is a prefix of another does not win for being shorter.

    Args:
        label_ids: Token ids of each label, end of turn included.
        max_rows: Rows (clips x labels) computed at a time; bounds memory.
    """

    label_ids: tuple[Tensor, ...]
    max_rows: int = 256

    @torch.no_grad()
    def __call__(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        """Log-likelihoods (B, C) in float32."""
        step = max(1, self.max_rows // len(self.label_ids))
        parts = [self._score(vlm, prompts[start : start + step]) for start in range(0, len(prompts), step)]
        return torch.cat(parts)

    def _score(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        device, classes = vlm.device, len(self.label_ids)
        cache, first, positions, rows = vlm.prefix(prompts)
        lead = torch.tensor([int(ids[0]) for ids in self.label_ids], device=device)
        scores = first[:, lead]
        rest = max(len(ids) for ids in self.label_ids) - 1
        if rest == 0:
            return scores
        # what is fed is a label without its last token; what is scored is the label without its first
        fed = torch.full((classes, rest), vlm.pad_id, dtype=torch.long, device=device)
        scored = fed.clone()
        real = torch.zeros((classes, rest), dtype=torch.long, device=device)
        for row, ids in enumerate(self.label_ids):
            fed[row, : len(ids) - 1] = ids[:-1].to(device)
            scored[row, : len(ids) - 1] = ids[1:].to(device)
            real[row, : len(ids) - 1] = 1
        behind = []
        for start in range(0, classes, self.max_rows):
            part = slice(start, start + self.max_rows)
            last = start + self.max_rows >= classes
            # expanding works in place, so all but the last part take a copy
            mine = cache if last else copy.deepcopy(cache)
            behind.append(self._continue(vlm, mine, positions, rows.mask, fed[part], scored[part], real[part]))
        return scores + torch.cat(behind, dim=1)

    def _continue(
        self, vlm: VLM, cache: Any, positions: Tensor, mask: Tensor, fed: Tensor, scored: Tensor, real: Tensor
    ) -> Tensor:
        """Log-likelihood of the labels' tokens behind the first (B, C') for C' of the labels."""
        clips, (classes, rest) = len(mask), fed.shape
        cache.batch_repeat_interleave(classes)
        mask = torch.cat([mask.repeat_interleave(classes, 0), real.repeat(clips, 1)], dim=1)
        steps = positions.repeat_interleave(classes).unsqueeze(1) + torch.arange(rest, device=mask.device)
        logits = vlm.continue_prefix(cache, mask, fed.repeat(clips, 1), steps)
        log_probs = logits.float().log_softmax(-1).gather(2, scored.repeat(clips, 1).unsqueeze(2)).squeeze(2)
        return (log_probs * real.repeat(clips, 1)).sum(1).reshape(clips, classes)
