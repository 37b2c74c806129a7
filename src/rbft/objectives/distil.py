"""Distillation: what the model answers after its own rationales is taught to its direct answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord, split_part
from rbft.errors import ConfigError, StageError
from rbft.objectives.base import ClassWeights, Objective, class_weights
from rbft.objectives.closed_set import label_scores
from rbft.rationales.soft_labels import SoftLabel
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM


class DistilObjective(Objective):
    """Cross-entropy of the closed set's soft labels with the direct answer's probabilities.

    The teacher is the model after a rationale of its own, the student the same model asked for the class alone, so
    that an answer costs no text any more (knowledge distillation, Hinton et al., arXiv 1503.02531; of reasoning into
    direct answers: Yu et al., Distilling System 2 into System 1, arXiv 2407.06023). All labels of a clip are read in
    one row.

    Args:
        temperature: softens the probabilities of both (Hinton et al., section 2); the loss is multiplied by its
            square, so that gradients stay as large.
        hard: weight of the true class beside the soft label, for clips whose class is known, between 0 and 1.
        confidence: clips without a known class whose likeliest class has less than this probability are left out.
        class_weights: `balanced` weighs labelled clips so that all classes count the same.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        hard: float = 0.0,
        confidence: float = 0.0,
        class_weights: ClassWeights = "none",
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise ConfigError(f"model.objective.temperature: {temperature} must be above 0.")
        for key, value in (("hard", hard), ("confidence", confidence)):
            if not 0 <= value <= 1:
                raise ConfigError(f"model.objective.{key}: {value} must lie between 0 and 1.")
        self.temperature, self.hard, self.confidence = temperature, hard, confidence
        self.class_weights: ClassWeights = class_weights
        self._classes = 0

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """A row for each class of each answered clip; the first one carries the weight of the clip.

        Raises:
            StageError: There are no soft labels, they are of other classes, or one is of no training video.
        """
        if not self.answers:
            raise StageError("DistilObjective learns soft labels; put a stage of kind 'answer' before this one.")
        prompt, weights = book.label_prompt(), class_weights(records, self.class_weights)
        by_id = {record.id: record for record in records}
        self._classes = len(book.labels)
        rows: list[Example] = []
        for answer in self.answers:
            if tuple(answer.classes) != tuple(book.labels.names):
                raise StageError(f"the soft label of {answer.id!r} is of other classes; answer again with --restart.")
            record = by_id.get(answer.id) if answer.label else _unlabelled(answer)
            if record is None:
                raise StageError(f"a soft label is of {answer.id!r}, which is not a training video of this run.")
            if not answer.label and max(answer.probabilities) < self.confidence:
                continue
            weight = weights[record.label] if answer.label else 1.0
            for place, (name, chance) in enumerate(zip(book.labels.names, self._softened(answer), strict=True)):
                row = Example(record, prompt, book.text(name), weight if place == 0 else 0.0, whole=True)
                rows.append(_with_clip(row, answer, chance))
        if not rows:
            raise StageError(
                "no soft label is as sure as model.objective.confidence asks for; lower it, or give labelled videos."
            )
        return rows

    def _softened(self, answer: SoftLabel) -> list[float]:
        """What the student is to give each class: the soft label and, where the class is known, that."""
        logs = torch.tensor(answer.probabilities, dtype=torch.float64).clamp(min=1e-12).log()
        soft = (logs / self.temperature).softmax(0)
        if answer.label and self.hard:
            truth = torch.zeros_like(soft)
            truth[answer.classes.index(answer.label)] = 1.0
            soft = torch.lerp(soft, truth, self.hard)
        return soft.tolist()

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted clips, divided by the clips of the step."""
        scores, weights = label_scores(vlm, batch, self._classes)
        soft = batch.values.reshape(scores.shape)
        each = -(soft * (scores / self.temperature).log_softmax(-1)).sum(-1)
        return self.temperature**2 * (each * weights).sum() / batch.normalizer


def _with_clip(row: Example, answer: SoftLabel, chance: float) -> Example:
    """A row about the clip that was answered, with what its class is to be given."""
    return Example(row.record, row.prompt, row.answer, row.weight, row.whole, chance, answer.frames_seed)


def _unlabelled(answer: SoftLabel) -> VideoRecord:
    """The video of a soft label whose class nobody knows."""
    path, part = split_part(answer.video)
    return VideoRecord(answer.id, path, "", part=part)
