"""The probability of each class after a text: the labels scored after a rationale and the words that lead to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbft.data.prompt_templates import PromptBook
from rbft.vlm.batch import PromptInputs
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Concluder:
    """Scores the labels after texts about clips.

    Args:
        processor: The model's processor.
        book: The experiment's prompts; the question is the one that names no answer.
        scorer: scorer of the labels after the label question; its normalisation is used here, too.
    """

    processor: ClipProcessor
    book: PromptBook
    scorer: LabelScorer

    @torch.no_grad()
    def __call__(self, vlm: VLM, prompts: Sequence[PromptInputs], texts: Sequence[str]) -> Tensor:
        """Probabilities (N, C) in float64.

        Args:
            vlm: The model.
            prompts: The question for a rationale, about the clip of each text.
            texts: The rationales without their conclusions.
        """
        after = [self.after(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        # the labels' tokens are the same after every text, unless a tokeniser joins one with what stands before it
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for row, (_, labels) in enumerate(after):
            groups.setdefault(tuple(tuple(ids.tolist()) for ids in labels), []).append(row)
        chances = torch.empty((len(after), len(self.book.texts)), dtype=torch.float64)
        for rows in groups.values():
            targets = tuple(after[rows[0]][1])
            scorer = replace(self.scorer, label_ids=targets, lengths=self._lengths(targets), prior=None)
            scores = scorer(vlm, [after[row][0] for row in rows])
            chances[rows] = scores.cpu().double().softmax(-1)
        return chances

    def _lengths(self, labels: Sequence[Tensor]) -> tuple[float, ...]:
        """What each label's log-likelihood is divided by: what is scored of it, without a beginning that all share."""
        if set(self.scorer.lengths) <= {1.0}:
            return self.scorer.lengths
        tokens = tuple(float(len(ids)) for ids in labels)
        if self.scorer.lengths == tuple(float(len(ids)) for ids in self.scorer.label_ids):
            return tokens
        return tuple(float(max(1, len(self.processor.decode(ids).encode()))) for ids in labels)

    def after(self, prompt: PromptInputs, text: str) -> tuple[PromptInputs, list[Tensor]]:
        """The question with a rationale and the words that lead to the class, and what each class adds to that."""
        question = self.book.blind_prompt()
        answers = [self.book.concluded(text, name) for name in self.book.labels.names]
        wholes = [self.processor.target_ids(question, answer) for answer in answers]
        shared = 0
        shortest = min(len(whole) for whole in wholes)
        while shared < shortest - 1 and len({int(whole[shared]) for whole in wholes}) == 1:
            shared += 1
        return prompt.followed_by(wholes[0][:shared]), [whole[shared:] for whole in wholes]
