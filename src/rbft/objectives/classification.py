"""Stage 2: learn to answer with the label (RB-FT section 3, stage II; alone it is direct supervised fine-tuning)."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.objectives.base import ClassWeights, Objective, check_anchor, class_weights
from rbft.rationales.store import Rationale


class ClassificationObjective(Objective):
    """Language-model loss on the label text.

    Args:
        class_weights: `balanced` weighs clips so that all classes count the same.
        anchor: weight of the divergence from the base model; 0 for none.
    """

    def __init__(self, class_weights: ClassWeights = "none", anchor: float = 0.0) -> None:
        self.class_weights, self.anchor = class_weights, check_anchor(anchor)

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """One row for each training video."""
        prompt, weights = book.label_prompt(), class_weights(records, self.class_weights)
        return [Example(record, prompt, book.text(record.label), weights[record.label]) for record in records]
