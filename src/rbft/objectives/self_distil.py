"""On-policy self-distillation: the model that is told the class teaches the one that is not, on the latter's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.objectives.base import ClassWeights, class_weights
from rbft.objectives.on_policy import OnPolicyObjective, answered, per_row
from rbft.rationales.store import Rationale
from rbft.vlm.base_weights import without_dropout
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM
from rbft.vlm.shared_prefix import answer_logits


class SelfDistilObjective(OnPolicyObjective):
    """Divergence, at each token of the student's own texts, from what the same model expects when told the class.

    Student and teacher are one model with two questions about the clip: the rationale question, and the hinted one,
    which names the class. The student writes, and learns the teacher's next-token distributions along its own text
    (Shenfeld et al., Self-Distillation Enables Continual Learning, arXiv 2601.19897; on-policy distillation: Agarwal
    et al., arXiv 2306.13649). So it is taught where it goes wrong, and the hint never stands in its prompt. No
    rationales are needed beforehand.

    Args:
        samples: texts about each clip and step.
        temperature: temperature of the sampling.
        top_p: sampling keeps the likeliest tokens that sum to this probability.
        max_new_tokens: length limit of a text, in tokens.
        divergence: `forward` is the Kullback-Leibler divergence of the teacher from the student, `reverse` that of the
            student from the teacher.
        teacher: `start` teaches with the weights that the stage starts from, `live` with those of the student.
        class_weights: `balanced` weighs clips so that all classes count the same.
    """

    def __init__(
        self,
        samples: int = 2,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        divergence: Literal["forward", "reverse"] = "forward",
        teacher: Literal["start", "live"] = "start",
        class_weights: ClassWeights = "none",
    ) -> None:
        super().__init__(samples, temperature, top_p, max_new_tokens)
        self.divergence, self.teacher = divergence, teacher
        self.needs_reference = teacher == "start"
        self.class_weights: ClassWeights = class_weights

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """Two rows for each training video: the student's question, then the teacher's.

        Raises:
            ConfigError: Both questions are the same.
        """
        weights, student = class_weights(records, self.class_weights), book.blind_prompt()
        rows: list[Example] = []
        for record in records:
            teacher = book.writing_prompt(record.label, hinted=True)
            if teacher == student:
                raise ConfigError(
                    "model.prompts.hinted_question is the rationale question, so there is nothing to teach."
                )
            rows.append(Example(record, student, None, weights[record.label], whole=True))
            rows.append(Example(record, teacher, None, 0.0, whole=True))
        return rows

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted clips, divided by the clips of the step."""
        students, teachers = range(0, len(batch), 2), range(1, len(batch), 2)
        written = self.write(vlm, batch, students)
        if self.teacher == "start":
            assert vlm.reference is not None, "the weights of the start were not kept"
            hinted = vlm.reference.active()
        else:
            hinted = without_dropout(vlm)
        with torch.no_grad(), hinted:
            told = answer_logits(vlm, answered(batch, teachers, written))
            expected = told.logits.float().log_softmax(-1)[told.sources]
        texts = answered(batch, students, written)
        own = answer_logits(vlm, texts)
        logs = own.logits.float().log_softmax(-1)[own.sources]
        first, second = (logs, expected) if self.divergence == "forward" else (expected, logs)
        divergence = F.kl_div(first, second, reduction="none", log_target=True).sum(-1)
        lengths = torch.tensor([len(target) for target in texts.targets], device=divergence.device)
        means = per_row(divergence, own.rows, len(texts)) / lengths
        return (means * texts.weights).sum() / self.sampling.samples / batch.normalizer
