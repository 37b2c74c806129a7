"""Answering after one rationale for each class: each is argued for, and all are weighed against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbft.answering.reasoning import Reasoned
from rbft.answering.settings import Answering
from rbft.data.prompt_templates import PromptBook
from rbft.evaluation.predictions import probabilities
from rbft.rationales.concluding import Concluder
from rbft.rationales.writer import seed_of
from rbft.vlm.batch import PromptInputs
from rbft.vlm.generation import generate
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Arguer:
    """Writes a rationale for each class that comes into question, and scores the classes jointly.

    Arguing under the assumption of each class in turn is from hateful-video detection (adversarial reasoning, Yang et
    al., arXiv 2512.02743; Yang, Zhang and Fu, arXiv 2601.15115), where a classifier or the model's own verdict decides.
    Here the closed set is scored. With r a class's rationale, v the video and q the question that names no class, the
    score of the class c is

        log p(c | v, q, r) + (log p(r | v, q) - log p(r | q)) / length

    The second term, the pointwise mutual information of rationale and video, takes away what makes a text likely about
    any video (as Holtzman et al., arXiv 2104.08315, take from a label what it scores without its premise). The length
    is 1 for `model.scoring.normalize: sum`, the tokens or bytes of the text for the others. Where all rationales are
    the same text, this is answering after that text.

    Args:
        processor: The model's processor.
        book: The experiment's prompts.
        concluder: scorer of the labels after a text.
        answering: how rationales are drawn, and most classes that are argued for.
        normalize: what the text's mutual information is divided by.
    """

    processor: ClipProcessor
    book: PromptBook
    concluder: Concluder
    answering: Answering
    normalize: str

    @torch.no_grad()
    def __call__(
        self,
        vlm: VLM,
        prompts: Sequence[PromptInputs],
        videos: Sequence[str],
        direct: Sequence[Sequence[float]],
        seed: int,
    ) -> list[Reasoned]:
        """Answer each prompt.

        Args:
            vlm: The model.
            prompts: The question for a rationale, about each video.
            videos: Ids, which the sampling is seeded by.
            direct: Probabilities (C) of each video's direct answer; its likeliest classes are argued for.
            seed: seed of the sampling.

        Returns:
            Their rationales with the classes they argue for, the best first. Classes that are not argued for keep
            their direct probability; the rest is shared by the scores of the others.
        """
        # read several times, encoded once; prompts that go on with texts of their own are not kept
        prompts = [replace(prompt, key=None) for prompt in vlm.with_features(prompts)]
        count = min(self.answering.most_argued, len(self.book.texts))
        ranked = [sorted(range(len(row)), key=lambda place: -row[place])[:count] for row in direct]
        texts: list[list[str]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        tokens = [0] * len(prompts)
        # one class of each video at a time, so that this takes no more memory than one rationale a video
        for rank in range(count):
            places = [row[rank] for row in ranked]
            written = self._write(vlm, prompts, videos, places, seed)
            bodies = [self.book.parse(self.processor.decode(ids)).body for ids in written]
            for row, (body, score) in enumerate(zip(bodies, self._scores(vlm, prompts, bodies, places), strict=True)):
                texts[row].append(body)
                scores[row].append(score)
                tokens[row] += len(written[row])
        rows = zip(ranked, texts, scores, direct, tokens, strict=True)
        return [self._weighed(*row) for row in rows]

    def _write(
        self, vlm: VLM, prompts: Sequence[PromptInputs], videos: Sequence[str], places: Sequence[int], seed: int
    ) -> list[Tensor]:
        """A rationale that argues for a class of each video, as tokens."""
        names = [self.book.labels.names[place] for place in places]
        asked = [
            self.processor.another(self.book.argued_prompt(name), prompt)
            for name, prompt in zip(names, prompts, strict=True)
        ]
        written = generate(
            vlm,
            [prompt.to(vlm.device) for prompt in asked],
            max_new_tokens=self.answering.max_new_tokens,
            temperature=self.answering.temperature,
            top_p=self.answering.top_p,
            banned_ids=self.processor.special_ids,
            seeds=[seed_of(seed, f"{video}:{name}") for video, name in zip(videos, names, strict=True)],
        )
        return [answers[0] for answers in written]

    def _scores(
        self, vlm: VLM, prompts: Sequence[PromptInputs], texts: Sequence[str], places: Sequence[int]
    ) -> list[float]:
        """The score of a class of each video with its rationale."""
        chances = self.concluder(vlm, prompts, texts)[torch.arange(len(texts)), torch.tensor(places)]
        question = self.processor.prompt_inputs(replace(self.book.blind_prompt(), video=False), None).to(vlm.device)
        gains = self._likelihoods(vlm, prompts, texts) - self._likelihoods(vlm, [question] * len(texts), texts)
        lengths = torch.tensor([self._length(text) for text in texts], dtype=torch.float64)
        scores: list[float] = (chances.clamp(min=1e-300).log() + gains / lengths).tolist()
        return scores

    def _likelihoods(self, vlm: VLM, prompts: Sequence[PromptInputs], texts: Sequence[str]) -> Tensor:
        """Log-likelihood (N,) of each text after its question, in float64; 0 of an empty one."""
        targets = [self._ids(text).to(vlm.device) for text in texts]
        sums = torch.zeros(len(texts), dtype=torch.float64)
        said = [row for row, target in enumerate(targets) if len(target)]
        if said:
            chances, rows = vlm.target_log_probs([prompts[row] for row in said], [targets[row] for row in said])
            sums[said] = torch.zeros(len(said), dtype=torch.float64).index_add_(0, rows.cpu(), chances.cpu().double())
        return sums

    def _ids(self, text: str) -> Tensor:
        # without the end of the turn: the conclusion is still to come
        return self.processor.target_ids(self.book.blind_prompt(), text)[:-1] if text else torch.empty(0).long()

    def _length(self, text: str) -> float:
        sizes = {"sum": 1, "token": len(self._ids(text)), "byte": len(text.encode())}
        return float(max(1, sizes[self.normalize]))

    def _weighed(
        self, places: Sequence[int], texts: Sequence[str], scores: Sequence[float], direct: Sequence[float], tokens: int
    ) -> Reasoned:
        chances = list(direct)
        # in the order of the direct answer these are its likeliest classes, so none of the others comes before all
        shared = min(1.0, math.fsum(direct[place] for place in places))
        for place, share in zip(places, probabilities(scores), strict=True):
            chances[place] = shared * share
        order = sorted(range(len(places)), key=lambda number: -scores[number])
        names = self.book.labels.names
        concluded = tuple(self.book.concluded(texts[number], names[places[number]]) for number in order)
        return Reasoned(concluded, tuple(chances), tokens)
