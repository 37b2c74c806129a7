"""Prompting the model for rationales of labelled videos."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rbft.data.dataset import Example
from rbft.data.prompt_templates import HintPolicy, PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.store import Rationale, prompt_hash
from rbft.rationales.vllm_writer import VLLM, Frames, Request, answers
from rbft.vlm.batch import Batch
from rbft.vlm.generation import Sampling, generate
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Regenerate:
    """Further attempts for videos whose rationales were all dropped.

    Args:
        attempts: most attempts; each writes as many samples as the first one, with other random numbers.
        temperature: temperature of these attempts, above 0.
        hint: whether they are given the label; None: as the attempt before. Unlabelled videos never are.
    """

    attempts: int = 2
    temperature: float = 0.7
    hint: Literal["blind", "hinted"] | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(
                f"model.writer.regenerate.attempts: {self.attempts} must be at least 1; leave "
                "model.writer.regenerate out for none."
            )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"model.writer.regenerate.temperature: {self.temperature} must be above 0; at 0 every "
                "attempt writes the same text."
            )


@dataclass(frozen=True)
class Attempt:
    """One round of writing: the first is about all videos, later ones about those that have no rationale yet.

    Args:
        number: number of the attempt, from 0.
        hinted: Whether labelled videos are written about with their label.
        temperature: temperature of the sampling.
        unlabelled: Whether unlabelled videos are written about too.
        contrast: Whether the prompt names another class than the video's.
    """

    number: int
    hinted: bool
    temperature: float
    unlabelled: bool = True
    contrast: bool = False


@dataclass(frozen=True)
class RationaleWriter(Sampling):
    """How rationales are written.

    Args:
        samples: rationales for each video.
        temperature: 0 writes the likeliest text; more than one sample needs a temperature above 0.
        top_p: sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: length limit of a rationale, in tokens.
        vllm: Has vLLM write them, in a process of its own; None: the model as it is loaded here.
        regenerate: Further attempts where all rationales of a video were dropped; None: none.
        contrast: Whether each labelled video also has `samples` rationales that are hinted to another class, which
            stand against those of its own in `PreferenceObjective(between="hints")`.
    """

    vllm: VLLM | None = None
    regenerate: Regenerate | None = None
    contrast: bool = False

    key = "model.writer"

    def attempts(self, hint: HintPolicy) -> list[Attempt]:
        """The rounds of writing under a hint policy, in order; later ones may turn out to have nothing to do."""
        rounds = [Attempt(0, hint in ("hint_stripped", "hint_kept"), self.temperature)]
        if hint == "blind_then_hint":
            # a label is all that this one has to add
            rounds.append(Attempt(1, hinted=True, temperature=self.temperature, unlabelled=False))
        if (more := self.regenerate) is not None:
            hinted = rounds[-1].hinted if more.hint is None else more.hint == "hinted"
            start = len(rounds)
            rounds += [Attempt(start + number, hinted, more.temperature) for number in range(more.attempts)]
        return rounds

    def contrasting(self, hint: HintPolicy) -> Attempt | None:
        """The round that is hinted to another class than each video's, after all others; None without any."""
        if not self.contrast:
            return None
        number = len(self.attempts(hint))
        return Attempt(number, hinted=True, temperature=self.temperature, unlabelled=False, contrast=True)

    def numbers(self, attempt: Attempt) -> range:
        """The numbers of the samples that an attempt writes of each video."""
        return range(attempt.number * self.samples, (attempt.number + 1) * self.samples)

    def examples(self, records: Sequence[VideoRecord], book: PromptBook, attempt: Attempt) -> list[Example]:
        """The question about each video; those without a label are asked without one."""
        if attempt.contrast:
            return [Example(record, book.contrast_prompt(record.id, record.label)) for record in records]
        return [
            Example(record, book.writing_prompt(record.label, hinted=attempt.hinted and bool(record.label)))
            for record in records
        ]

    def write(
        self,
        vlm: VLM,
        processor: ClipProcessor,
        book: PromptBook,
        batch: Batch,
        examples: Sequence[Example],
        author: str,
        seed: int,
        attempt: Attempt,
    ) -> list[Rationale]:
        """Write the rationales of a batch.

        Args:
            vlm: The model.
            processor: processor of the model.
            book: The experiment's prompts.
            batch: The clips with their questions.
            examples: examples that the rows of the batch are about.
            author: Name of the model and of its weights.
            seed: seed of the sampling; with the video's id it decides on a text, whatever else is in the batch.
            attempt: round of writing.
        """
        written = generate(
            vlm,
            batch.prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=attempt.temperature,
            top_p=self.top_p,
            samples=self.samples,
            banned_ids=processor.special_ids,
            seeds=[seed_of(seed, example.record.id, attempt.number) for example in examples],
        )
        rationales: list[Rationale] = []
        for example, samples in zip(examples, written, strict=True):
            for number, ids in zip(self.numbers(attempt), samples, strict=True):
                text, truncated = processor.decode(ids), int(ids[-1]) not in vlm.end_ids
                rationales.append(_rationale(book, processor, example, number, text, truncated, author))
        return rationales

    def write_elsewhere(
        self,
        model: dict[str, str | None],
        processor: ClipProcessor,
        book: PromptBook,
        examples: Sequence[Example],
        frames: Callable[[Example], Frames],
        author: str,
        seed: int,
        attempt: Attempt,
        log: Path,
    ) -> Iterator[list[Rationale]]:
        """The rationales of each example by vLLM, as they come; no model is loaded here.

        Args:
            model: Name or folder, revision and dtype.
            processor: processor of the model.
            book: The experiment's prompts.
            examples: The questions.
            frames: Those of an example's video.
            author: Name of the model.
            seed: seed of the sampling.
            attempt: round of writing.
            log: file for the output of vLLM.
        """
        assert self.vllm is not None
        sampling = {
            "n": self.samples,
            "temperature": attempt.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_new_tokens,
            "stop_token_ids": list(processor.end_ids),
            "banned_token_ids": sorted(set(processor.special_ids) - set(processor.end_ids)),
        }
        requests = []
        for example in examples:
            prompt = processor.render(example.prompt)
            others = tuple(filter(None, [processor.wrapped_twice(prompt)]))
            requests.append(Request(example, prompt, seed_of(seed, example.record.id, attempt.number), others))
        for request, received in answers(self.vllm, model, sampling, requests, frames, log):
            texts = [(processor.decode(torch.tensor(answer.ids)), answer.truncated) for answer in received]
            yield [
                _rationale(book, processor, request.example, number, written, truncated, author)
                for number, (written, truncated) in zip(self.numbers(attempt), texts, strict=True)
            ]


def _rationale(
    book: PromptBook,
    processor: ClipProcessor,
    example: Example,
    number: int,
    written: str,
    truncated: bool,
    author: str,
) -> Rationale:
    parsed, record = book.parse(written), example.record
    # a control token can be spelt in plain letters too, and would be read as one in training: such a text is none
    control = any(token in parsed.body for token in processor.special_tokens)
    body = "" if control else parsed.body
    blind = example.prompt == book.blind_prompt()
    return Rationale(
        id=record.id,
        sample=number,
        video=record.video,
        label=record.label or parsed.stated or "",
        prompt_hash=prompt_hash(example.prompt),
        hint="blind" if blind else book.hinted_as,
        model=author,
        text=body,
        stated=parsed.stated,
        written=written,
        truncated=truncated,
        kept=bool(body),
        reason="control token" if control else "" if body else "empty",
        labelled=bool(record.label),
        hinted_to=book.hinted_to(example.prompt, record.label),
    )


def seed_of(seed: int, video: str, attempt: int = 0) -> int:
    """The seed of what is written about a video in an attempt."""
    place = f"{seed}:{video}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=6).digest(), "big")
