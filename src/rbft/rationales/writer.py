"""Prompting the model for rationales of labelled videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale, prompt_hash
from rbft.vlm.batch import Batch
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
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256

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
            seed: Of the sampling.
        """
        answers = vlm.generate(
            batch.prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            samples=self.samples,
            banned_ids=processor.special_ids,
            seed=seed,
        )
        rationales: list[Rationale] = []
        for example, samples in zip(examples, answers, strict=True):
            for number, ids in enumerate(samples):
                written = processor.decode(ids)
                parsed = book.parse(written)
                record = example.record
                rationales.append(
                    Rationale(
                        id=record.id,
                        sample=number,
                        video=record.path,
                        label=record.label,
                        prompt_hash=prompt_hash(example.prompt),
                        hint=book.prompts.hint,
                        model=author,
                        text=parsed.body,
                        stated=parsed.stated,
                        written=written,
                        truncated=int(ids[-1]) not in vlm.end_ids,
                        kept=bool(parsed.body),
                        reason="" if parsed.body else "empty",
                    )
                )
        return rationales
