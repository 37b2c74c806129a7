"""The objective of a training stage: which texts the model learns to answer, and the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.rationales.soft_labels import SoftLabel
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.shared_prefix import answer_logits

ClassWeights = Literal["none", "balanced"]


class Objective(ABC):
    """One per stage; knows nothing of Lightning."""

    anchor: float = 0.0
    anchor_at: ClassVar[Literal["base", "start"]] = "base"
    """The weights that `vlm.reference` holds: those of the base model, or those that the stage starts from."""
    writes: ClassVar[bool] = False
    """Whether it has the model write while it is trained."""
    needs_reference: bool = False
    contrasts: bool = False
    """Whether it learns from texts that were hinted to another class than their video's, too."""
    """Whether `vlm.reference` is needed whatever `anchor` is."""
    learns: ClassVar[Literal["label", "rationale"]] = "label"
    """What the model learns to answer, the class or a rationale alone; the best weights are chosen by it."""
    answers: Sequence[SoftLabel] = ()
    """Soft labels of the answer stage before this one, set before `examples` is called; none without such a stage."""

    def connect(self, processor: ClipProcessor, book: PromptBook, seed: int) -> None:
        """Set what an objective needs that has the model write: its processor, the prompts and the seed of the run."""
        self.processor, self.book, self.seed = processor, book, seed

    def begin_epoch(self, epoch: int) -> None:
        """Say which epoch a batch is of, from 0: what is drawn in it is the same when it is repeated."""
        self.epoch = epoch

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the last batch to log beside the loss, by name; always the same names."""
        return {}

    @abstractmethod
    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """The rows of a training stage.

        Args:
            records: labelled training videos.
            book: the experiment's prompts.
            rationales: rationales of the write stage; empty where no stage wrote any.
        """

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted tokens, divided by the step's tokens."""
        return language_model_loss(vlm, batch, self.anchor)


def class_weights(records: Sequence[VideoRecord], how: ClassWeights) -> dict[str, float]:
    """Weight of a video of each class; the mean over all videos is 1.

    Args:
        records: training videos.
        how: `balanced` weighs a video by the inverse of its class's number of videos, so that all classes have the
            same weight together (King and Zeng, Logistic Regression in Rare Events Data, 2001).
    """
    counts = Counter(record.label for record in records)
    if how == "none":
        return dict.fromkeys(counts, 1.0)
    return {name: len(records) / (len(counts) * count) for name, count in counts.items()}


def check_anchor(anchor: float) -> float:
    """A weight of the divergence from the base model.

    Raises:
        ConfigError: The weight is negative or not a number.
    """
    if not 0 <= anchor < float("inf"):
        raise ConfigError(f"model.objective.anchor: {anchor} must be at least 0.")
    return anchor


def language_model_loss(vlm: VLM, batch: Batch, anchor: float = 0.0) -> Tensor:
    """Weighted cross-entropy of the answers' tokens over the number of tokens of the whole optimiser step.

    Dividing by the step's own token count, not the batch's, makes gradients independent of how a step is cut into
    micro-batches and ranks. Dividing by their number, not by the sum of their weights, makes a weight act the same in
    a step of one clip as in a step of all.

    Args:
        vlm: the model.
        batch: questions and answers.
        anchor: weight of the Kullback-Leibler divergence of the base model's next-token distribution from the model's,
            at each supervised token (as the penalty that keeps a policy near its start in Ziegler et al., arXiv
            1909.08593, but of the base model's side): what the base model knows beyond the few labels is kept.

    Returns:
        A scalar in float32.
    """
    base = None
    if anchor > 0:
        assert vlm.reference is not None, "the base model's weights were not kept"
        with torch.no_grad(), vlm.reference.active():
            base = answer_logits(vlm, batch).logits.float().log_softmax(-1)
    answers = answer_logits(vlm, batch)
    weights = batch.weights[answers.rows]
    loss = -(answers.log_probs() * weights).sum()
    if base is not None:
        tuned = answers.logits.float().log_softmax(-1)
        divergence = F.kl_div(tuned, base, reduction="none", log_target=True).sum(-1)
        loss = loss + anchor * (divergence[answers.sources] * weights).sum()
    return loss / batch.normalizer
