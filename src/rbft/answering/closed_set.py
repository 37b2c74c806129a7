"""One pass over validation or test videos: every question answered on the closed set, gathered over all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist

from rbft.answering.arguing import Arguer
from rbft.answering.reasoning import Reasoned, Reasoner
from rbft.answering.settings import Answering
from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, ModelError
from rbft.evaluation.predictions import Prediction, probabilities
from rbft.vlm.batch import Batch, PromptInputs
from rbft.vlm.best_labels import BestLabels
from rbft.vlm.label_scorer import LabelScorer, Scoring
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


class _Answered(NamedTuple):
    """One question about one video."""

    scores: list[float]
    rationales: tuple[str, ...] | None  # None where the labels were scored right after the question


class ClosedSetScoring:
    """Scores the labels for each video, directly and, where asked for, after the model's own rationale.

    Args:
        processor: The model's processor.
        book: The experiment's prompts.
        scoring: How labels are scored.
        answering: How test videos are answered.
        seed: seed of sampled rationales.

    Attributes:
        gate: probability from which on a direct answer stands and nothing is written; None: every video is written
            about where rationales are asked for. Set once it was chosen.
        drawn_as: names that the sampling about videos is seeded by, by their ids, where these are not it.

    Raises:
        ConfigError: Two classes are the same tokens for the model, or the two questions are the same.
    """

    def __init__(
        self, processor: ClipProcessor, book: PromptBook, scoring: Scoring, answering: Answering, seed: int
    ) -> None:
        self._book, self._scoring, self._seed = book, scoring, seed
        prompt = book.label_prompt()
        targets = tuple(processor.target_ids(prompt, text) for text in book.texts)
        seen: dict[tuple[int, ...], str] = {}
        for name, ids in zip(book.labels.names, targets, strict=True):
            other = seen.setdefault(tuple(ids.tolist()), name)
            if other != name:
                raise ConfigError(
                    f"the model reads the classes {other!r} and {name!r} as the same tokens; "
                    "set model.prompts.label_texts for one of them."
                )
        if answering.writes and book.blind_prompt() == prompt:
            raise ConfigError(
                "model.answering: the rationale question is the label question, so there is no second "
                "way to answer; set model.prompts.rationale_question."
            )
        self.scorer = LabelScorer.of(targets, book.texts, scoring)
        self._reasoner = Reasoner(processor, book, self.scorer, answering)
        self._arguer = (
            Arguer(processor, book, self._reasoner.concluder, answering, scoring.normalize)
            if answering.mode == "argued"
            else None
        )
        self.gate = answering.gate
        self._answered: list[tuple[int, _Answered]] = []
        self.seconds = {"direct": 0.0, "rationale": 0.0}
        self.tokens_written = 0
        self.written: dict[str, tuple[str, ...]] = {}
        self.drawn_as: Mapping[str, str] = {}
        self._fixed: Mapping[str, Sequence[str]] | None = None
        self._best: BestLabels | None = None

    def score_best(self, count: int | None) -> None:
        """Score so many of the best labels alone from now on, where videos are answered directly; None: all labels."""
        self._best = None if count is None else BestLabels(self.scorer, count)

    @property
    def share_reasoned(self) -> float:
        """Of the videos of the last pass that were asked for a rationale, those that one was written about."""
        return sum(map(bool, self.written.values())) / max(1, len(self.written))

    def fix_rationales(self, texts: Mapping[str, Sequence[str]] | None) -> None:
        """Score after these rationales, by the id of the video that is shown, instead of writing; None: write."""
        self._fixed = texts

    def examples(self, records: Sequence[VideoRecord], *, reasoned: bool) -> list[Example]:
        """What is asked about each video: its class, and for a rationale where one is to be written."""
        questions = [self._book.label_prompt(), *([self._book.blind_prompt()] if reasoned else [])]
        return [Example(record, question) for record in records for question in questions]

    def reasoned(self, vlm: VLM, prompts: Sequence[PromptInputs], names: Sequence[str]) -> list[Reasoned]:
        """Answer questions for a rationale, each after texts of the model's own.

        Args:
            vlm: The model.
            prompts: The question about each clip.
            names: names of the clips, which the sampling is seeded by.
        """
        return self._reasoner(vlm, prompts, names, self._seed)

    def start(self, vlm: VLM, blank: PromptInputs | None) -> None:
        """Begin a pass.

        Args:
            vlm: The model.
            blank: The label question about a blank clip, where scores are taken relative to it.
        """
        self._answered = []
        self.seconds, self.tokens_written = {"direct": 0.0, "rationale": 0.0}, 0
        if blank is not None:
            self.scorer = self.scorer.corrected(vlm, blank)

    def add(self, vlm: VLM, batch: Batch, examples: Sequence[Example]) -> None:
        """Answer the questions of a batch.

        Args:
            vlm: The model.
            batch: The questions.
            examples: examples that its rows are about.
        """
        asked = self._book.label_prompt()
        direct = [row for row, example in enumerate(examples) if example.prompt == asked]
        reasoned = [row for row, example in enumerate(examples) if example.prompt != asked]
        # encoded once for both questions
        prompts = vlm.with_features(batch.prompts) if reasoned else list(batch.prompts)
        answered: dict[int, _Answered] = {}
        start = time.perf_counter()
        if direct:
            score = self._best or self.scorer
            scores = score(vlm, [prompts[row] for row in direct]).cpu().double().tolist()
            answered |= {row: _Answered(values, None) for row, values in zip(direct, scores, strict=True)}
        middle = time.perf_counter()
        # all that is asked about a video comes in one batch
        found = {}
        if self.gate is not None or self._arguer is not None:
            found = {examples[row].record.id: probabilities(answered[row].scores) for row in direct}
        if self.gate is not None:
            sure = {row for row in reasoned if max(found[examples[row].record.id]) >= self.gate}
            answered |= {row: _Answered(list(found[examples[row].record.id]), ()) for row in sure}
            reasoned = [row for row in reasoned if row not in sure]
        if reasoned:
            videos = [examples[row].record.id for row in reasoned]
            about = [prompts[row] for row in reasoned]
            drawn = [self.drawn_as.get(video, video) for video in videos]
            if self._arguer is not None:
                answers = self._arguer(vlm, about, drawn, [found[video] for video in videos], self._seed)
            else:
                named = drawn if self._fixed is None else videos
                answers = self._reasoner(vlm, about, named, self._seed, self._fixed)
            for row, answer in zip(reasoned, answers, strict=True):
                answered[row] = _Answered(list(answer.probabilities), answer.texts)
                self.tokens_written += answer.tokens
        self.seconds["direct"] += middle - start
        self.seconds["rationale"] += time.perf_counter() - middle
        weights = batch.weights.tolist()
        self._answered += [(batch.indices[row], answer) for row, answer in answered.items() if weights[row] > 0]

    def gather(self, examples: Sequence[Example], role: str, world_size: int, *, partly: bool) -> list[Prediction]:
        """One prediction for each video of a role, in order, the same on every rank.

        Args:
            examples: all examples.
            role: role of the videos, for messages.
            world_size: Number of processes.
            partly: Whether only some of the videos were to be scored.

        Raises:
            ModelError: Some were left out.
        """
        parts: list[Any] = [self._answered]
        if world_size > 1:
            parts = [None] * world_size
            dist.all_gather_object(parts, self._answered)
        answers: dict[int, _Answered] = dict(row for part in parts for row in part)
        by_video: dict[str, list[int]] = {}
        for index in sorted(answers):
            by_video.setdefault(examples[index].record.id, []).append(index)
        if not partly and sorted(answers) != list(range(len(examples))):
            total = len({example.record.id for example in examples})
            raise ModelError(
                f"{len(by_video)} of {total} {role} videos were scored; trainer.limit_{role}_batches must "
                "not be set, because a figure of a part would pass for the whole."
            )
        self.written = {
            examples[index].record.id: texts
            for index, answer in answers.items()
            if (texts := answer.rationales) is not None
        }
        answered = by_video.values()
        return [self._prediction(examples[rows[0]].record, [answers[row] for row in rows]) for rows in answered]

    @property
    def _written_as(self) -> str:
        """The mode that answers which texts were written for are of."""
        if self._arguer is not None:
            return "argued"
        return "rationale" if self.gate is None else "gated"

    def _prediction(self, record: VideoRecord, answers: Sequence[_Answered]) -> Prediction:
        direct = next(answer for answer in answers if answer.rationales is None)
        reasoned = next((answer for answer in answers if answer.rationales is not None), None)
        chances, names = probabilities(direct.scores), self._book.labels.names
        predicted = names[chances.index(max(chances))]
        bare = Prediction(record.id, record.video, record.label, predicted, chances, tuple(direct.scores))
        if reasoned is None:
            return bare
        text = "\n\n".join(reasoned.rationales or ())
        return Prediction(
            record.id,
            record.video,
            record.label,
            predicted,
            chances,
            tuple(direct.scores),
            text,
            {"direct": chances, self._written_as: tuple(reasoned.scores)},
        )
