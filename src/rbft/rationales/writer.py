"""Prompting the model for rationales of labelled videos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale, prompt_hash
from rbft.rationales.vllm_writer import VLLM, Frames, Request, answers
from rbft.vlm.batch import Batch
from rbft.vlm.generation import generate
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class RationaleWriter:
    """How rationales are written.

    Args:
        samples: Rationales for each video.
        temperature: 0 writes the likeliest text; more than one sample needs a temperature above 0.
        top_p: Sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: Length limit of a rationale, in tokens.
        vllm: Has vLLM write them, in a process of its own; None: the model as it is loaded here.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    vllm: VLLM | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1:
            raise ConfigError("model.writer: samples and max_new_tokens must be at least 1.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("model.writer: temperature must not be negative, and top_p lies in (0, 1].")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"model.writer: {self.samples} samples at temperature 0 would all be the same text; "
                "set model.writer.temperature, for example to 0.7."
            )

    def examples(self, records: Sequence[VideoRecord], book: PromptBook) -> list[Example]:
        """The question about each video."""
        return [Example(record, book.writing_prompt(record.label)) for record in records]

    def write(
        self,
        vlm: VLM,
        processor: ClipProcessor,
        book: PromptBook,
        batch: Batch,
        examples: Sequence[Example],
        author: str,
        seed: int,
    ) -> list[Rationale]:
        """Write the rationales of a batch.

        Args:
            vlm: The model.
            processor: Its processor.
            book: The experiment's prompts.
            batch: The clips with their questions.
            examples: What the rows of the batch are about.
            author: Name of the model and of its weights.
            seed: Of the sampling; with the video's id it decides on a text, whatever else is in the batch.
        """
        written = generate(
            vlm,
            batch.prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            samples=self.samples,
            banned_ids=processor.special_ids,
            seeds=[seed_of(seed, example.record.id) for example in examples],
        )
        rationales: list[Rationale] = []
        for example, samples in zip(examples, written, strict=True):
            for number, ids in enumerate(samples):
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
        log: Path,
    ) -> Iterator[list[Rationale]]:
        """The rationales of each example by vLLM, as they come; no model is loaded here.

        Args:
            model: Name or folder, revision and dtype.
            processor: Its processor.
            book: The experiment's prompts.
            examples: The questions.
            frames: Those of an example's video.
            author: Name of the model.
            seed: Of the sampling.
            log: Takes what vLLM prints.
        """
        assert self.vllm is not None
        sampling = {
            "n": self.samples,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_new_tokens,
            "stop_token_ids": list(processor.end_ids),
            "banned_token_ids": sorted(set(processor.special_ids) - set(processor.end_ids)),
        }
        requests = [
            Request(example, processor.render(example.prompt), seed_of(seed, example.record.id)) for example in examples
        ]
        for request, found in answers(self.vllm, model, sampling, requests, frames, log):
            texts = [(processor.decode(torch.tensor(answer.ids)), answer.truncated) for answer in found]
            yield [
                _rationale(book, processor, request.example, number, written, truncated, author)
                for number, (written, truncated) in enumerate(texts)
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
    return Rationale(
        id=record.id,
        sample=number,
        video=record.path,
        label=record.label,
        prompt_hash=prompt_hash(example.prompt),
        hint=book.prompts.hint,
        model=author,
        text=body,
        stated=parsed.stated,
        written=written,
        truncated=truncated,
        kept=bool(body),
        reason="control token" if control else "" if body else "empty",
    )


def seed_of(seed: int, video: str) -> int:
    """The seed of what is written about a video."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{video}".encode(), digest_size=6).digest(), "big")
