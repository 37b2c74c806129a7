"""What each stage of a run will cost, before it runs: tokens of its rows, memory, and its time roughly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from rbft.estimate.clip_costs import Clips, KnownCosts, describe_clips, size_of
from rbft.estimate.device import Device, Speed, device_of, measure_speed
from rbft.estimate.encoder_cost import encoder_estimate
from rbft.estimate.report import refuse_certain
from rbft.estimate.stage_cost import StageEstimate
from rbft.estimate.stage_rows import StageRows
from rbft.vlm.cost import ModelSize

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage


class Estimator:
    """What runs on one device will cost; clips of one shape are computed once for all of them.

    Args:
        device: device that they run on.
        speed_of: function that gives the speed of that device; None leaves times out.
    """

    def __init__(self, device: Device, speed_of: Callable[[torch.dtype], Speed] | None) -> None:
        self.device, self._speed_of = device, speed_of
        self._known: KnownCosts = {}

    @classmethod
    def here(cls, trainer: dict[str, Any], seconds: float = 0.5) -> Estimator:
        """The estimates for this machine, whose speed is measured once and when it is needed.

        Args:
            trainer: settings of the trainer.
            seconds: how long the speed is measured, in seconds; 0 leaves times out.
        """
        device = device_of(trainer)
        return cls(device, cache(lambda dtype: measure_speed(device, dtype, seconds)) if seconds else None)

    def clips(self, entry: ReadStage) -> Clips | None:
        """The clips of all readable videos of the splits; None if there is none.

        Raises:
            ModelError: A clip breaks the bound on visual tokens, or the processor refuses it.
        """
        return describe_clips(entry, self._known)

    def stages(self, stages: Sequence[ReadStage]) -> list[StageEstimate]:
        """What each stage will cost; those without readable videos are left out.

        Args:
            stages: all stages of a run, in order.

        Raises:
            UnknownCostError: A model is of a family whose cost is not known.
            ModelError: A clip breaks the bound on visual tokens, or the processor refuses it.
        """
        encoded: set[tuple[Any, ...]] = set()
        sizes: list[tuple[tuple[Any, ...], ModelSize]] = []
        estimates: list[StageEstimate] = []

        def rows_of(entry: ReadStage) -> StageRows:
            return StageRows(entry, self.device, encoded, self._known, size_of(entry, sizes))

        for entry in stages:
            if not entry.stage.uses_model:
                estimates += encoder_estimate(entry, self.device, self._speed_of)
                continue
            rows = rows_of(entry)
            rows.folded = [rows_of(before) for before in entry.trained_by] if entry.folds else []
            if rows.rows:
                estimates.append(rows.estimate(self._speed_of))
        return estimates

    def possible(self, stages: Sequence[ReadStage]) -> list[StageEstimate]:
        """What each stage will cost, of a run that can work.

        Raises:
            UnknownCostError: A model is of a family whose cost is not known.
            ModelError: Weights and optimiser alone are more than the device's memory, or a clip cannot be read.
        """
        estimates = self.stages(stages)
        refuse_certain(estimates, self.device)
        return estimates
