"""Stage 2 as a classifier: the right label's text is to score higher than the other labels' texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.objectives.base import ClassWeights, Objective, class_weights
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM
from rbft.vlm.shared_prefix import AnswerLogits, answer_logits


class ClosedSetObjective(Objective):
    """Cross-entropy over the closed set: a softmax of the labels' log-likelihoods, just as they are scored at test.

    The language-model loss raises the right label; this one also pushes the wrong ones down (as the choice losses of
    T-Few, Liu et al., arXiv 2205.05638, section 3.2). All labels of a clip are read in one row.

    Args:
        class_weights: `balanced` weighs clips so that all classes count the same.
    """

    def __init__(self, class_weights: ClassWeights = "none") -> None:
        self.class_weights = class_weights

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """A row for each label of each training video, the right one first; it carries the weight of the clip."""
        prompt, weights = book.label_prompt(), class_weights(records, self.class_weights)
        rows: list[Example] = []
        for record in records:
            others = [name for name in book.labels.names if name != record.label]
            rows.append(Example(record, prompt, book.text(record.label), weights[record.label], whole=True))
            rows += [Example(record, prompt, book.text(name), 0.0) for name in others]
        return rows

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted clips, divided by the clips of the step."""
        scores, weights = label_scores(vlm, batch, len(batch) // len(set(batch.clips)))
        right = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        return (F.cross_entropy(scores, right, reduction="none") * weights).sum() / batch.normalizer


def label_scores(vlm: VLM, batch: Batch, classes: int) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of labels whose rows stand in groups, all labels of a question together.

    Args:
        vlm: the model.
        batch: rows of the labels, of which the first of each group carries the group's weight as a whole answer.
        classes: number of labels of each group.

    Returns:
        Log-likelihoods (G, C) in float32 and the weight of each group (G,).
    """
    scores = answer_scores(answer_logits(vlm, batch), len(batch)).reshape(-1, classes)
    return scores, answer_weights(batch).reshape(scores.shape)[:, 0]


def answer_scores(answers: AnswerLogits, rows: int) -> Tensor:
    """Log-likelihood of each row's answer (B,) in float32, B being the number of rows."""
    return torch.zeros(rows, device=answers.logits.device).index_add(0, answers.rows, answers.log_probs())


def answer_weights(batch: Batch) -> Tensor:
    """Weight of each row's answer as a whole (B,), which was divided among its tokens."""
    return batch.weights * torch.tensor([len(target) for target in batch.targets], device=batch.weights.device)
