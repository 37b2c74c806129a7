"""Stage 1: learn to write the rationales (RB-FT section 3, stage I)."""

from __future__ import annotations

from collections.abc import Sequence

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.errors import StageError
from rbft.objectives.base import Objective
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale


class RationaleObjective(Objective):
    """Language-model loss on the kept rationales of the training videos."""

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """One row for each kept rationale.

        Raises:
            StageError: A rationale is of no training video, or a class has none left.
        """
        by_id = {record.id: record for record in records}
        rows: list[Example] = []
        for rationale in rationales:
            if rationale.id not in by_id:
                raise StageError(
                    f"a rationale is of {rationale.id!r}, which is no training video of this run; only training "
                    "videos may have rationales."
                )
            if rationale.kept and rationale.weight > 0:
                record = by_id[rationale.id]
                answer = book.rationale_target(rationale.text, record.label)
                rows.append(Example(record, book.training_prompt(record.label), answer, rationale.weight))
        covered = {row.record.label for row in rows}
        if lost := sorted({record.label for record in records} - covered):
            raise StageError(f"no rationale is left for the class {lost[0]!r}; write them again or keep more of them.")
        return rows
