"""Answering after its own rationale: the model first writes about the video, then the labels are scored after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from rbft.data.prompt_templates import PromptBook
from rbft.rationales.concluding import Concluder
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

    @property
    def concluder(self) -> Concluder:
        """What scores the labels after a text."""
        return Concluder(self.processor, self.book, self.scorer)

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
        # read twice, encoded once; a prompt that goes on with a text of its own is met once, and nothing of it is kept
        prompts = [replace(prompt, key=None) for prompt in vlm.with_features(prompts)]
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
        """Score the labels after each text; `tokens` were written for each prompt."""
        asked = [prompt for prompt, rows in zip(prompts, texts, strict=True) for _ in rows]
        chances = self.concluder(vlm, asked, [text for rows in texts for text in rows])
        means = chances.reshape(len(prompts), self.sampling.samples, -1).mean(1).tolist()
        return [
            Reasoned(tuple(rows), tuple(mean), count) for rows, mean, count in zip(texts, means, tokens, strict=True)
        ]
