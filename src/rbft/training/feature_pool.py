"""Mean-pooled visual features of clips, gathered over all ranks: what a linear probe is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from rbft.data.dataset import Example
from rbft.errors import ModelError
from rbft.vlm.batch import Batch
from rbft.vlm.finite import require_finite
from rbft.vlm.model import VLM


class FeaturePool:
    """Takes the mean over the visual tokens of each clip: what the projector feeds the language model, (N, H) to (H,).

    All families give their features in that form, whatever their towers make of frames and patches; further levels
    (DeepStack, in Qwen3-VL) are left out.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, NDArray[np.float64]]] = []

    def add(self, vlm: VLM, batch: Batch) -> None:
        """Pool the clips of a batch; rows of weight 0 only fill it up."""
        prompts, weights = vlm.with_features(batch.prompts), batch.weights.tolist()
        for index, prompt, weight in zip(batch.indices, prompts, weights, strict=True):
            if weight > 0 and prompt.encoded is not None:
                pooled = prompt.encoded.features.detach().cpu().double().mean(0)
                require_finite(pooled.unsqueeze(0), [prompt], "the visual features of the clip", vlm)
                self._rows.append((index, pooled.numpy()))

    def by_id(self, examples: Sequence[Example]) -> dict[str, NDArray[np.float64]]:
        """The features (H,) of the videos that this process encoded, by id of the video.

        Args:
            examples: all examples that were to be encoded.
        """
        return {examples[index].record.id: row for index, row in self._rows}

    def gather(self, examples: Sequence[Example], world_size: int) -> dict[str, NDArray[np.float64]]:
        """The features (H,) of each video by its id, the same on every rank.

        Args:
            examples: all examples that were encoded, one a video.
            world_size: number of processes.

        Raises:
            ModelError: A video was left out.
        """
        return gather_features(self._rows, [example.record.id for example in examples], world_size)


def gather_features(
    rows: Sequence[tuple[int, NDArray[np.float64]]], ids: Sequence[str], world_size: int
) -> dict[str, NDArray[np.float64]]:
    """The features of each video by its id, the same on every rank.

    Args:
        rows: number of each video that this process encoded, with its features.
        ids: ids of all videos that were to be encoded.
        world_size: number of processes.

    Raises:
        ModelError: A video was left out.
    """
    parts: list[Any] = [rows]
    if world_size > 1:
        parts = [None] * world_size
        dist.all_gather_object(parts, rows)
    features = {ids[index]: row for part in parts for index, row in part}
    if len(features) < len(ids):
        raise ModelError(
            f"{len(features)} of {len(ids)} videos were encoded; trainer.limit_predict_batches must "
            "not be set, because a figure of a part would pass for the whole."
        )
    return features
