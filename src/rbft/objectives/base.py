"""What a training stage asks of the model: which texts it shall answer, and the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.records import VideoRecord
from rbft.rationales.prompts import PromptBook
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM


class Objective(ABC):
    """One per stage; knows nothing of Lightning."""

    @abstractmethod
    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """The rows of a training stage.

        Args:
            records: The labelled training videos.
            book: The experiment's prompts.
            rationales: What the write stage wrote; empty where no stage wrote any.
        """

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: summed over batches and ranks it is the weighted token mean."""
        return language_model_loss(vlm, batch)


def language_model_loss(vlm: VLM, batch: Batch) -> Tensor:
    """Weighted cross-entropy of the answers' tokens over the normaliser of the whole optimiser step.

    Dividing by the step's own token count, not the batch's, makes gradients independent of how a step is cut into
    micro-batches and ranks.

    Returns:
        A scalar in float32.
    """
    log_probs, rows = vlm.target_log_probs(batch.prompts, batch.targets)
    return -(log_probs * batch.weights.to(log_probs.device)[rows]).sum() / batch.normalizer
