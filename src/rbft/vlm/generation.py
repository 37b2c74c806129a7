"""Writing answers: each prompt is read once, however many answers are drawn after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rbft.errors import ConfigError
from rbft.vlm.batch import PromptInputs
from rbft.vlm.finite import require_finite
from rbft.vlm.model import VLM
from rbft.vlm.prefix_cache import read_together
from rbft.vlm.sharded import any_rank


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn from a model; a subclass names the key of an experiment file that sets it.

    Args:
        samples: texts for each prompt.
        temperature: 0 writes the likeliest text; more than one sample needs a temperature above 0.
        top_p: sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: length limit of a text, in tokens.

    Raises:
        ConfigError: a value is out of its range; names the key.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256

    key: ClassVar[str] = "sampling"

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1:
            raise ConfigError(f"{self.key}: samples and max_new_tokens must be at least 1.")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise ConfigError(f"{self.key}: temperature must not be negative, and top_p lies in (0, 1].")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"{self.key}: {self.samples} samples at temperature 0 would all be the same text; "
                f"set {self.key}.temperature, for example to 0.7."
            )


@torch.no_grad()
def generate(
    vlm: VLM,
    prompts: Sequence[PromptInputs],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    samples: int = 1,
    banned_ids: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
) -> list[list[Tensor]]:
    """Write answers.

    Every row draws from a random state of its own, so an answer does not depend on which others are written with it,
    and the process's random state stays as it was. A row that is done is no longer computed.

    Args:
        vlm: The model.
        prompts: What is to be answered.
        max_new_tokens: Length limit of an answer.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: Sampling keeps the likeliest tokens that sum to this probability (Holtzman et al., arXiv 1904.09751).
        samples: Answers for each prompt.
        banned_ids: Tokens that never appear (visual placeholders and other special tokens); those that end an answer
            are never banned.
        seeds: seeds of the sampling, one for each prompt; None: 0 for all.

    Returns:
        For each prompt, `samples` sequences of token ids, the end token included if it was reached.

    Raises:
        ModelError: A logit of the next token is not a number.
    """
    seeds = [0] * len(prompts) if seeds is None else seeds
    answers: list[list[Tensor]] = [[] for _ in prompts]
    for group in read_together(vlm, prompts):
        group_prompts, own = [prompts[row] for row in group], [seeds[row] for row in group]
        written = _write(vlm, group_prompts, max_new_tokens, temperature, top_p, samples, banned_ids, own)
        for row, texts in zip(group, written, strict=True):
            answers[row] = texts
    return answers


def _write(
    vlm: VLM,
    prompts: Sequence[PromptInputs],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    samples: int,
    banned_ids: Sequence[int],
    seeds: Sequence[int],
) -> list[list[Tensor]]:
    """As `generate`, for prompts that are read together."""
    device = vlm.device
    cache, first, positions, read = vlm.prefix(prompts)
    if samples > 1:
        cache.reorder_cache(torch.arange(len(prompts), device=device).repeat_interleave(samples))
    logits = first.repeat_interleave(samples, 0)
    positions = positions.repeat_interleave(samples)
    mask = torch.nn.functional.pad(read.mask, (0, max_new_tokens), value=1).repeat_interleave(samples, 0)
    banned = torch.tensor(sorted(set(banned_ids) - set(vlm.end_ids)), dtype=torch.long, device=device)
    ends = torch.tensor(vlm.end_ids, device=device)
    total, width = len(logits), read.mask.shape[1]
    written = torch.full((total, max_new_tokens), vlm.pad_id, dtype=torch.long, device=device)
    chances = None
    if temperature > 0:
        chances = _uniform(seeds, samples, max_new_tokens).to(device)
    rows = torch.arange(total, device=device)  # those that are still computed
    done = torch.zeros(total, dtype=torch.bool, device=device)
    highest = torch.zeros(total, device=device)  # not a number as soon as one of a row is not; checked once
    for step in range(max_new_tokens):
        highest[rows] = highest[rows] + logits.amax(-1)
        logits = logits.index_fill(1, banned, -torch.inf)
        tokens = logits.argmax(-1) if chances is None else _sample(logits, temperature, top_p, chances[rows, step])
        written[rows, step] = tokens
        done = done | torch.isin(tokens, ends)
        left = len(rows) - int(done.sum())
        if step + 1 == max_new_tokens or not any_rank(vlm, left > 0):
            break
        # leaving rows out copies the cache, so that is done when it saves a quarter of the work
        if max(left, 1) <= 0.75 * len(rows):
            # one is kept where other processes are still writing and need this one
            keep = (~done).nonzero()[:, 0] if left else torch.zeros(1, dtype=torch.long, device=device)
            cache.reorder_cache(keep)
            rows, tokens, positions, mask, done = rows[keep], tokens[keep], positions[keep], mask[keep], done[keep]
        fed, seen = tokens.unsqueeze(1), mask[:, : width + step + 1]
        logits = vlm.continue_prefix(cache, seen, fed, (positions + step).unsqueeze(1))[:, 0].float()
    require_finite(highest, [prompt for prompt in prompts for _ in range(samples)], "the expected tokens", vlm)
    # a row that ended and was still computed went on after its end
    answers = [_cut(row, ends) for row in written]
    return [answers[start : start + samples] for start in range(0, total, samples)]


def _uniform(seeds: Sequence[int], samples: int, steps: int) -> Tensor:
    """A number in [0, 1) for each token of each answer (R, T), drawn from the seed of its row alone."""
    rows = [np.random.default_rng((seed, sample)).random(steps) for seed in seeds for sample in range(samples)]
    return torch.from_numpy(np.stack(rows)).float()


_UNIT = 2**40  # of a probability as a whole number; the sum over any vocabulary fits into 64 bits


def _sample(logits: Tensor, temperature: float, top_p: float, chances: Tensor) -> Tensor:
    """The token at a given place of each row's cumulative distribution, its likeliest tokens first (R,)."""
    ordered, tokens = (logits / temperature).softmax(-1).sort(-1, descending=True)
    # whole numbers: running sums of others differ from run to run on a GPU, and `trainer.deterministic` refuses them
    cumulative = (ordered.double() * _UNIT).long().cumsum(-1)
    # the token that reaches top_p is the last one kept
    kept = (cumulative < round(top_p * _UNIT)).sum(-1, keepdim=True).clamp(max=ordered.shape[1] - 1)
    place = (chances.unsqueeze(1).double() * cumulative.gather(1, kept)).long()
    # rounding may put the place on the total itself
    chosen = torch.searchsorted(cumulative, place, right=True).minimum(kept)
    return tokens.gather(1, chosen).squeeze(1)


def _cut(row: Tensor, ends: Tensor) -> Tensor:
    """The ids up to and with the first end token."""
    over = torch.isin(row, ends).nonzero()
    return row[: int(over[0]) + 1] if len(over) else row
