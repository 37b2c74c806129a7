"""Stage 2: learn to answer with the label (RB-FT section 3, stage II; alone it is direct supervised fine-tuning)."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.objectives.base import Objective
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale


class ClassificationObjective(Objective):
    """Language-model loss on the label text."""

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """One row for each training video."""
        prompt = book.label_prompt()
        return [Example(record, prompt, book.text(record.label)) for record in records]
