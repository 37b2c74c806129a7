"""Answering after its own rationale: the model first writes about the video, then the labels are scored after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbft.data.prompt_templates import PromptBook
from rbft.rationales.writer import seed_of
from rbft.vlm.batch import PromptInputs
from rbft.vlm.generation import Sampling, generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Reasoned:
    """What the model wrote about a video, and what it made of it.

    Args:
        texts: The rationales.
        probabilities: One per class, averaged over the rationales.
        tokens: Tokens written.
    """

    texts: tuple[str, ...]
    probabilities: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class Reasoner:
    """Writes rationales and scores the labels after them.

    Args:
        processor: The model's processor.
        book: The experiment's prompts; the question is the one that names no answer.
        scorer: scorer of the labels after the label question; its normalisation is used here, too.
        sampling: how rationales are drawn.
    """

    processor: ClipProcessor
    book: PromptBook
    scorer: LabelScorer
    sampling: Sampling

    @torch.no_grad()
    def __call__(
        self,
        vlm: VLM,
        prompts: Sequence[PromptInputs],
        videos: Sequence[str],
        seed: int,
        fixed: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Reasoned]:
        """Answer each prompt.

        Args:
            vlm: The model.
            prompts: The question for a rationale, about each video.
            videos: Ids, which the sampling is seeded by.
            seed: seed of the sampling.
            fixed: rationales by video, in the place of written ones; as many for each as are otherwise written.
        """
        # read twice, encoded once
        prompts = vlm.with_features(prompts)
        if fixed is not None:
            return self._score(vlm, prompts, [list(fixed[video]) for video in videos], [0] * len(videos))
        written = generate(
            vlm,
            prompts,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            samples=self.sampling.samples,
            banned_ids=self.processor.special_ids,
            seeds=[seed_of(seed, video) for video in videos],
        )
        texts = [[self.book.parse(self.processor.decode(ids)).body for ids in rows] for rows in written]
        return self._score(vlm, prompts, texts, [sum(len(ids) for ids in answers) for answers in written])

    def _score(
        self, vlm: VLM, prompts: Sequence[PromptInputs], texts: Sequence[list[str]], tokens: Sequence[int]
    ) -> list[Reasoned]:
        """Score the labels behind each text; `tokens` were written for each prompt."""
        after = [self._after(prompt, text) for prompt, rows in zip(prompts, texts, strict=True) for text in rows]
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
        means = chances.reshape(len(prompts), self.sampling.samples, -1).mean(1).tolist()
        return [
            Reasoned(tuple(rows), tuple(mean), count) for rows, mean, count in zip(texts, means, tokens, strict=True)
        ]

    def _lengths(self, labels: Sequence[Tensor]) -> tuple[float, ...]:
        """What each label's log-likelihood is divided by: what is scored of it, without a beginning that all share."""
        if set(self.scorer.lengths) <= {1.0}:
            return self.scorer.lengths
        tokens = tuple(float(len(ids)) for ids in labels)
        if self.scorer.lengths == tuple(float(len(ids)) for ids in self.scorer.label_ids):
            return tokens
        return tuple(float(max(1, len(self.processor.decode(ids).encode()))) for ids in labels)

    def _after(self, prompt: PromptInputs, text: str) -> tuple[PromptInputs, list[Tensor]]:
        """The question with a rationale and the words that lead to the class, and what each class adds to that."""
        question = self.book.blind_prompt()
        answers = [self.book.concluded(text, name) for name in self.book.labels.names]
        wholes = [self.processor.target_ids(question, answer) for answer in answers]
        shared = 0
        shortest = min(len(whole) for whole in wholes)
        while shared < shortest - 1 and len({int(whole[shared]) for whole in wholes}) == 1:
            shared += 1
        return prompt.followed_by(wholes[0][:shared]), [whole[shared:] for whole in wholes]
