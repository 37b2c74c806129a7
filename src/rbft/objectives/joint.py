"""Both at once: rationale and label as two tasks in one stage (Hsieh et al., arXiv 2305.02301)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.objectives.base import ClassWeights, Objective, check_anchor
from rbft.objectives.classification import ClassificationObjective
from rbft.objectives.rationale import RationaleObjective
from rbft.rationales.store import Rationale


class JointObjective(Objective):
    """Language-model loss on the tokens of labels and rationales together.

    Args:
        alpha: weight of a label's tokens, between 0 and 1; those of rationales weigh 1 - alpha, divided by how many
            rationales a video has in the mean. The loss is a mean over weighted tokens: a rationale has many more of
            them than a label, so at 0.5 most of the loss is about rationales.
        class_weights: `balanced` weighs clips so that all classes count the same.
        anchor: weight of the divergence from the base model; 0 for none.
    """

    def __init__(self, alpha: float = 0.5, class_weights: ClassWeights = "none", anchor: float = 0.0) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"model.objective.alpha: {alpha} must lie between 0 and 1, both excluded.")
        self.alpha, self.class_weights, self.anchor = alpha, class_weights, check_anchor(anchor)

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """The rows of both tasks."""
        labels = ClassificationObjective(self.class_weights).examples(records, book, rationales)
        texts = RationaleObjective(self.class_weights).examples(records, book, rationales)
        balance = len(labels) / len(texts)
        return [replace(row, weight=self.alpha * row.weight) for row in labels] + [
            replace(row, weight=(1 - self.alpha) * balance * row.weight) for row in texts
        ]
