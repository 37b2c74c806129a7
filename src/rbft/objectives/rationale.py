"""Stage 1: learn to write the rationales (RB-FT section 3, stage I)."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord, split_part
from rbft.errors import StageError
from rbft.objectives.base import ClassWeights, Objective, check_anchor, class_weights
from rbft.rationales.store import Rationale


class RationaleObjective(Objective):
    """Language-model loss on the kept rationales of the training videos, and of unlabelled ones under their own words.

    Args:
        class_weights: `balanced` weighs clips so that all classes count the same.
        anchor: weight of the divergence from the base model; 0 for none.
    """

    learns = "rationale"

    def __init__(self, class_weights: ClassWeights = "none", anchor: float = 0.0) -> None:
        self.class_weights, self.anchor = class_weights, check_anchor(anchor)

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """One row for each kept rationale.

        Raises:
            StageError: A rationale is of no training video, or a class has none left.
        """
        weights = class_weights(records, self.class_weights)
        by_id = {record.id: record for record in records}
        rows: list[Example] = []
        for rationale in rationales:
            record = by_id.get(rationale.id) if rationale.labelled else _unlabelled(rationale)
            if record is None:
                raise StageError(
                    f"a rationale is of {rationale.id!r}, which is not a training video of this run; only training "
                    "videos may have rationales."
                )
            if rationale.kept and rationale.weight > 0:
                prompt = book.training_prompt(record.label, labelled=rationale.labelled)
                answer = book.rationale_target(rationale.text, record.label)
                rows.append(Example(record, prompt, answer, rationale.weight * weights.get(record.label, 1.0)))
        covered = {row.record.label for row in rows if row.record.id in by_id}
        if lost := sorted({record.label for record in records} - covered):
            raise StageError(f"no rationale is left for the class {lost[0]!r}; write them again or keep more of them.")
        return rows


def _unlabelled(rationale: Rationale) -> VideoRecord:
    """The video of a rationale whose class is what the text says."""
    path, part = split_part(rationale.video)
    return VideoRecord(rationale.id, path, rationale.label, part=part)
