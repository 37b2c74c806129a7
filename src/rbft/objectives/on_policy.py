"""What objectives share that learn from texts which the model writes while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from rbft.objectives.base import Objective
from rbft.rationales.writer import seed_of
from rbft.vlm.base_weights import without_dropout
from rbft.vlm.batch import Batch, Item, PromptInputs, collate
from rbft.vlm.generation import Sampling, generate
from rbft.vlm.model import VLM


@dataclass(frozen=True)
class _Sampling(Sampling):
    key: ClassVar[str] = "model.objective"


class OnPolicyObjective(Objective):
    """Has the model write about the clips of each batch, and learns at the tokens that it wrote.

    A clip's texts are drawn from (seed, epoch, clip): a step that is repeated, or cut in another way, has the same.
    They are written with one reading of the prompt, and trained on as branches of one row.

    Args:
        samples: texts about each clip and step.
        temperature: temperature of the sampling, above 0 for several samples.
        top_p: sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: length limit of a text, in tokens.
    """

    learns = "rationale"
    anchor_at = "start"
    writes = True

    def __init__(self, samples: int, temperature: float, top_p: float, max_new_tokens: int) -> None:
        self.sampling = _Sampling(samples, temperature, top_p, max_new_tokens)

    def write(self, vlm: VLM, batch: Batch, rows: Sequence[int]) -> list[list[Tensor]]:
        """Texts (T,) that the model writes for some rows of a batch, dropout off: `samples` for each.

        Args:
            vlm: the model.
            batch: the questions.
            rows: rows that are written for.
        """
        with torch.no_grad(), without_dropout(vlm):
            return generate(
                vlm,
                vlm.with_features([batch.prompts[row] for row in rows]),
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                samples=self.sampling.samples,
                banned_ids=self.processor.special_ids,
                seeds=[seed_of(self.seed, f"{self.epoch}:{batch.indices[row]}") for row in rows],
            )


def answered(batch: Batch, rows: Sequence[int], written: Sequence[Sequence[Tensor]]) -> Batch:
    """Rows of a batch with several answers each, which stand together as those about one clip.

    Args:
        batch: the questions.
        rows: rows that were answered.
        written: answers to each.

    Returns:
        A batch whose weights are those of the rows; the normaliser stays.
    """

    def items(row: int, answers: Sequence[Tensor]) -> list[Item]:
        prompt: PromptInputs = batch.prompts[row]
        return [Item(batch.indices[row], prompt, answer, 1.0, batch.normalizer) for answer in answers]

    together = collate([items(row, answers) for row, answers in zip(rows, written, strict=True)])
    counts = torch.tensor([len(answers) for answers in written], device=batch.weights.device)
    weights, values = (of[list(rows)].repeat_interleave(counts) for of in (batch.weights, batch.values))
    return replace(together, weights=weights, values=values)


def per_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums of values (N,) over the tokens of each row (B,)."""
    return torch.zeros(count, device=values.device).index_add(0, rows, values)
