"""Log-likelihood of every label of a closed set after a video prompt that is read once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from rbft.errors import ConfigError
from rbft.vlm.batch import PromptInputs, Rows
from rbft.vlm.finite import require_finite
from rbft.vlm.model import VLM
from rbft.vlm.prefix_cache import read_together
from rbft.vlm.shared_prefix import Packed, packed_logits
from rbft.vlm.token_tree import TokenTree, split_by_size


@dataclass(frozen=True)
class Scoring:
    """How a label's score is made from the log-probabilities of its tokens.

    Args:
        normalize: `sum` is the log-likelihood of the label's text; `token` and `byte` divide it by the number of its
            tokens or of the bytes of its text, which takes from long labels the disadvantage of being long (length
            normalisation as in GPT-3, Brown et al., arXiv 2005.14165, section 2.4).
        prior: `blank` subtracts what the label scores after a blank clip, and so what the model expects before it
            has seen anything (contextual calibration and pointwise mutual information: Zhao et al., arXiv 2102.09690;
            Holtzman et al., arXiv 2104.08315).
        max_tokens: Tokens of labels (clips x nodes of the label tree) read at a time; bounds memory. Where each label
            has a row of its own, the prompt that is copied for it counts as well.
    """

    normalize: Literal["sum", "token", "byte"] = "sum"
    prior: Literal["none", "blank"] = "none"
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"model.scoring.max_tokens: {self.max_tokens} must be at least 1.")


@dataclass(frozen=True)
class LabelScorer:
    """Scores a closed set of labels.

    The prompt is read once into a key-value cache. Behind it all labels are read in one row, in which a beginning
    that labels share stands once and each token sees its own label only. Attention kernels that take no such mask
    read a row for each label. The end of turn counts as a token, so a label that is a prefix of another does not win
    for being shorter.

    Args:
        label_ids: Token ids of each label, end of turn included.
        lengths: What each label's log-likelihood is divided by; 1 for none.
        max_tokens: Tokens of labels read at a time.
        prior: (C,) subtracted from the scores.
    """

    label_ids: tuple[Tensor, ...]
    lengths: tuple[float, ...] = ()
    max_tokens: int = Scoring.max_tokens
    prior: Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, label_ids: tuple[Tensor, ...], texts: Sequence[str], scoring: Scoring) -> LabelScorer:
        """A scorer of labels, `texts` being what their ids say."""
        lengths = {
            "sum": tuple(1.0 for _ in label_ids),
            "token": tuple(float(len(ids)) for ids in label_ids),
            "byte": tuple(float(len(text.encode())) for text in texts),
        }
        return cls(label_ids, lengths[scoring.normalize], scoring.max_tokens)

    def corrected(self, vlm: VLM, blank: PromptInputs) -> LabelScorer:
        """The same with the scores after a blank clip subtracted."""
        return replace(self, prior=replace(self, prior=None)(vlm, [blank])[0])

    @torch.no_grad()
    def __call__(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        """Scores (B, C) in float32.

        Raises:
            ModelError: The scores after a prompt are not finite.
        """
        widest = max(len(tree) for _, tree in self._trees)
        step = max(1, self.max_tokens // max(1, widest))
        scores = torch.empty((len(prompts), len(self.label_ids)), dtype=torch.float32, device=vlm.device)
        for group in read_together(vlm, prompts):
            for start in range(0, len(group), step):
                rows = group[start : start + step]
                scores[rows] = self._score(vlm, [prompts[row] for row in rows])
        if self.lengths:
            scores = scores / torch.tensor(self.lengths, device=scores.device)
        require_finite(scores, prompts, "the scores of the classes", vlm)
        return scores if self.prior is None else scores - self.prior.to(scores.device)

    @cached_property
    def _trees(self) -> list[tuple[list[int], TokenTree]]:
        # a tree's mask grows with its square, so many labels are read in several trees after the same prompt
        groups = split_by_size(self.label_ids, min(self.max_tokens, TREE_NODES))
        return [(group, TokenTree.of([self.label_ids[i] for i in group])) for group in groups]

    def _score(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        """Log-likelihoods (B, C)."""
        if self._reads_kept_states(vlm, prompts):
            return self._score_packed(vlm, prompts)
        cache, first, positions, rows = vlm.prefix(prompts)
        if all(len(ids) == 1 for ids in self.label_ids):
            return first[:, torch.cat(list(self.label_ids)).to(first.device)]
        if not vlm.takes_tree_masks:
            return self._score_rows(vlm, cache, first, positions, rows)
        scores = first.new_empty((len(prompts), len(self.label_ids)))
        for group, tree in self._trees:
            group_scores = first.new_zeros((len(prompts), len(group)))
            after = vlm.continue_tree(cache, rows.mask, positions, tree) if len(tree) else None
            log_totals = None if after is None else _log_totals(after)
            for column, index in enumerate(group):
                ids, sources = self.label_ids[index].to(first.device), tree.sources[column].to(first.device)
                group_scores[:, column] = first[:, ids[0]]
                if after is not None and log_totals is not None and len(ids) > 1:
                    logits = after[:, sources[1:], ids[1:]].float()
                    group_scores[:, column] += (logits - log_totals[:, sources[1:]]).sum(1)
            scores[:, group] = group_scores
            if len(tree):
                cache.crop(-len(tree))
        return scores

    def _reads_kept_states(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> bool:
        """Whether what leaves the frozen layers of prompt and labels is kept: they are then one row, of one tree."""
        known = vlm.states is not None and all(prompt.key is not None for prompt in prompts)
        return known and vlm.takes_packed_rows and len(self._trees) == 1

    def _score_packed(self, vlm: VLM, prompts: Sequence[PromptInputs]) -> Tensor:
        """The same with each prompt and the labels after it in one row, whose lower layers are known."""
        ((group, tree),) = self._trees
        owners = torch.cat([torch.full((len(self.label_ids[i]),), i) for i in group])
        tokens = torch.cat([self.label_ids[i] for i in group])
        sources = torch.cat(tree.sources)
        rows = [Packed(prompt, tree, sources + len(prompt.ids), tokens, owners) for prompt in prompts]
        answers, labels = packed_logits(vlm, rows)
        log_totals = _log_totals(answers.logits.unsqueeze(0))[0]
        log_probs = answers.logits[answers.sources, answers.tokens].float() - log_totals[answers.sources]
        classes = len(self.label_ids)
        scores = log_probs.new_zeros(len(prompts) * classes)
        return scores.index_add(0, answers.rows * classes + labels, log_probs).reshape(len(prompts), classes)

    def _score_rows(self, vlm: VLM, cache: Any, first: Tensor, positions: Tensor, rows: Rows) -> Tensor:
        """The same by a row for each label and clip."""
        device, classes = first.device, len(self.label_ids)
        rest = max(len(ids) for ids in self.label_ids) - 1
        # what is fed is a label without its last token; what is scored is the label without its first
        fed = torch.full((classes, rest), vlm.pad_id, dtype=torch.long, device=device)
        scored = fed.clone()
        real = torch.zeros((classes, rest), dtype=torch.long, device=device)
        for row, ids in enumerate(self.label_ids):
            fed[row, : len(ids) - 1] = ids[:-1].to(device)
            scored[row, : len(ids) - 1] = ids[1:].to(device)
            real[row, : len(ids) - 1] = 1
        after = []
        # each row has a copy of its prompt's keys and values, which is most of its memory
        step = max(1, self.max_tokens // ((rest + rows.ids.shape[1]) * len(first)))
        for start in range(0, classes, step):
            part = slice(start, start + step)
            # expanding works in place, so all but the last part take a copy
            step_cache = cache if start + step >= classes else copy.deepcopy(cache)
            after.append(_continue(vlm, step_cache, positions, rows.mask, fed[part], scored[part], real[part]))
        lead = torch.tensor([int(ids[0]) for ids in self.label_ids], device=device)
        return first[:, lead] + torch.cat(after, dim=1)


TREE_NODES = 256
"""Nodes of a tree at most; of 256, 512 and 4096 on a CPU the fastest and smallest (benchmarks/score_labels.py)."""


def _continue(
    vlm: VLM, cache: Any, positions: Tensor, mask: Tensor, fed: Tensor, scored: Tensor, real: Tensor
) -> Tensor:
    """Log-likelihood of the labels' tokens after the first (B, C') for C' of the labels."""
    clips, (classes, rest) = len(mask), fed.shape
    cache.reorder_cache(torch.arange(clips, device=mask.device).repeat_interleave(classes))
    mask = torch.cat([mask.repeat_interleave(classes, 0), real.repeat(clips, 1)], dim=1)
    steps = positions.repeat_interleave(classes).unsqueeze(1) + torch.arange(rest, device=mask.device)
    logits = vlm.continue_prefix(cache, mask, fed.repeat(clips, 1), steps)
    log_probs = logits.gather(2, scored.repeat(clips, 1).unsqueeze(2)).squeeze(2).float() - _log_totals(logits)
    return (log_probs * real.repeat(clips, 1)).sum(1).reshape(clips, classes)


LOGITS_AT_ONCE = 256
"""Rows of logits that are converted to float32 at a time."""


def _log_totals(logits: Tensor) -> Tensor:
    """Log of the summed exponentials over the vocabulary (B, N).

    A few rows at a time: a copy of all logits in float32 would be the largest tensor of the whole pass.
    """
    flat = logits.flatten(0, 1)
    pieces = (flat[start : start + LOGITS_AT_ONCE] for start in range(0, len(flat), LOGITS_AT_ONCE))
    parts = [piece.float().logsumexp(-1) for piece in pieces]
    return torch.cat(parts).reshape(logits.shape[:2])
