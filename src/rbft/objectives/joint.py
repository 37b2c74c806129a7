"""Both at once: rationale and label as two tasks in one stage (Hsieh et al., arXiv 2305.02301)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.objectives.base import Objective
from rbft.objectives.classification import ClassificationObjective
from rbft.objectives.rationale import RationaleObjective
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale


class JointObjective(Objective):
    """Weighted sum of the language-model losses on label and rationale.

    Args:
        alpha: Share of the label's loss, between 0 and 1; the rationale's is 1 - alpha. Each share is divided evenly
            over its supervised rows, so the number of rationales a video has does not shift it.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"model.objective.alpha: {alpha} must lie between 0 and 1, both excluded.")
        self.alpha = alpha

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """The rows of both tasks."""
        labels = ClassificationObjective().examples(records, book, rationales)
        texts = RationaleObjective().examples(records, book, rationales)
        balance = len(labels) / len(texts)
        return [replace(row, weight=self.alpha * row.weight) for row in labels] + [
            replace(row, weight=(1 - self.alpha) * balance * row.weight) for row in texts
        ]
