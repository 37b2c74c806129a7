"""Stage 2 that keeps what stage 1 taught: the class is learned after texts that the model has just written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import StageError
from rbft.objectives.base import ClassWeights, Objective, check_anchor, class_weights
from rbft.objectives.closed_set import answer_scores, answer_weights
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM
from rbft.vlm.shared_prefix import answer_logits


class ReasonedObjective(Objective):
    """Cross-entropy over the closed set after each kept rationale, just as labels are scored at test.

    Stage 2 of RB-FT asks for the class alone, and a model that is answered after its own rationale forgets under it how
    to write. Here the rationales are those of the model that stage 1 left, written without the label: training sees the
    texts that a test will see, wrong ones included (exposure bias: Ranzato et al., arXiv 1511.06732). Nothing is
    learned about the texts themselves; `anchor` holds the model to them.

    Args:
        class_weights: `balanced` weighs clips so that all classes count the same.
        anchor: weight of the divergence, at the tokens of the rationale, from the weights that the stage starts from;
            a mean over the tokens of a text.
    """

    learns = "rationale"
    anchor_at = "start"

    def __init__(self, class_weights: ClassWeights = "none", anchor: float = 1.0) -> None:
        self.class_weights: ClassWeights = class_weights
        self.anchor = check_anchor(anchor)
        self._classes = 0

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """A row for each class after each kept rationale, the right one first; it carries the weight of the text.

        Raises:
            StageError: A rationale was written with the label, is of no training video, or a class has none left.
        """
        weights, by_id = class_weights(records, self.class_weights), {record.id: record for record in records}
        prompt, names = book.blind_prompt(), book.labels.names
        self._classes = len(names)
        rows: list[Example] = []
        for rationale in rationales:
            if not rationale.labelled or not rationale.kept or rationale.weight == 0:
                continue
            if (record := by_id.get(rationale.id)) is None:
                raise StageError(f"a rationale is of {rationale.id!r}, which is not a training video of this run.")
            if rationale.hint != "blind":
                raise StageError(
                    f"the rationale of {rationale.id!r} was written with its label, which no test will have. Set "
                    "model.prompts.hint to blind in the layer of the write stage before this one."
                )
            weight = rationale.weight * weights[record.label]
            for name in (record.label, *(name for name in names if name != record.label)):
                answer = book.concluded(rationale.text, name)
                rows.append(Example(record, prompt, answer, weight if name == record.label else 0.0, whole=True))
        covered = {row.record.label for row in rows}
        if lost := sorted({record.label for record in records} - covered):
            raise StageError(f"no rationale is left for the class {lost[0]!r}; write them again or keep more of them.")
        return rows

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted texts, divided by the texts of the step."""
        base = None
        if self.anchor > 0:
            assert vlm.reference is not None, "the weights of the start were not kept"
            with torch.no_grad(), vlm.reference.active():
                base = answer_logits(vlm, batch).logits.float().log_softmax(-1)
        answers = answer_logits(vlm, batch)
        # the text is the same in all rows of a group, and what is the same for all classes decides between none
        scores = answer_scores(answers, len(batch)).reshape(-1, self._classes)
        weights = answer_weights(batch).reshape(scores.shape)[:, 0]
        right = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        loss = (F.cross_entropy(scores, right, reduction="none") * weights).sum()
        if base is not None:
            divergence = F.kl_div(answers.logits.float().log_softmax(-1), base, reduction="none", log_target=True)
            of_token = divergence.sum(-1)[answers.sources]
            # the first row of a group stands for its text, up to where the classes part
            groups = enumerate(_shared_tokens(batch.targets, self._classes))
            means = [of_token[answers.rows == group * self._classes][:length].mean() for group, length in groups]
            loss = loss + self.anchor * (torch.stack(means) * weights).sum()
        return loss / batch.normalizer


def _shared_tokens(targets: Sequence[Tensor], classes: int) -> list[int]:
    """Tokens at the start that all answers of each group have in common."""
    lengths = []
    for start in range(0, len(targets), classes):
        group = targets[start : start + classes]
        shortest = min(len(target) for target in group)
        same = torch.stack([target[:shortest] == group[0][:shortest] for target in group]).all(0)
        lengths.append(shortest if bool(same.all()) else int((~same).nonzero()[0]))
    return lengths
