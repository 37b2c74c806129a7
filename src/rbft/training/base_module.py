"""What a LightningModule does around an optimiser step: seeds, memory, finite numbers, and checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import lightning as L
import torch
from torch import Tensor

from rbft.data.dataset import Example
from rbft.errors import ConfigError, StageError
from rbft.objectives.base import Objective
from rbft.training.finite_check import FiniteCheck
from rbft.training.oom_split import MicroBatchSplit, SplitStep
from rbft.vlm.batch import Batch
from rbft.vlm.feature_cache import hardware
from rbft.vlm.lower_layers import LowerLayers, keep_states, lower_layers_of
from rbft.vlm.model import VLM
from rbft.vlm.sharded import is_sharded
from rbft.vlm.tuning import trained_state


class TrainingModule(L.LightningModule):
    """Trains by an objective so that any step can be done again, anywhere, with the same result.

    Args:
        objective: what is learned; None for a stage that trains nothing.

    Attributes:
        kept_visits: In the last training, visits of a row for which what leaves the frozen layers was there, and all
            visits of a row on this process; None where nothing of the kind is kept.
    """

    def __init__(self, objective: Objective | None) -> None:
        super().__init__()
        # adapters and trained parts only are saved; the base model is read from its own files
        self.strict_loading = False
        self.objective = objective
        self.vlm: VLM | None = None
        self.seed = 0
        self._epoch_batches = 0
        self._lower: LowerLayers | None = None
        self.kept_visits: tuple[int, int] | None = None
        self._cuts: dict[str, MicroBatchSplit] = {}

    @property
    def ready(self) -> VLM:
        """The loaded model."""
        assert self.vlm is not None, "configure_model has not run"
        return self.vlm

    @property
    def _writes(self) -> bool:
        """Whether what is learned is written while it is learned."""
        return self.objective is not None and self.objective.writes

    def configure_callbacks(self) -> list[L.Callback]:
        """Callbacks that every training needs, whoever made the trainer."""
        return [FiniteCheck()]

    @cached_property
    def _step(self) -> SplitStep:
        """How gradients are computed in the memory there is."""
        pieces = self._pieces("train", alone=self.trainer.world_size == 1)
        return SplitStep(pieces, self._share, self._seed_step, self.zero_grad)

    def _share(self, batch: Batch) -> Tensor:
        assert self.objective is not None
        with self.trainer.precision_plugin.forward_context():
            return self.objective.loss(self.ready, batch)

    def on_fit_start(self) -> None:
        """Keep what leaves the frozen layers of each row, where they come before all that is trained."""
        self._lower = lower_layers_of(self.ready.model)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self._lower is not None and data.keeps_states and not is_sharded(self.ready):
            device = self.trainer.strategy.root_device
            computing = [self.trainer.precision, self.ready.compute_dtype, *hardware(device)]
            # texts that are written in a step do not come again, and would fill the disk
            kept = data.states.in_memory_only() if self._writes else data.states
            self.ready.states = keep_states(self._lower, kept, self.ready.end_ids[0], *computing)

    def on_fit_end(self) -> None:
        """Free the memory of what was kept."""
        self.kept_visits = None
        if self.vlm is not None and self.vlm.states is not None:
            self.kept_visits = self.vlm.states.found, self.vlm.states.visits
            self.vlm.states.clear()
            self.vlm.states = None

    def on_train_epoch_start(self) -> None:
        """Dropout acts in the parts that are trained; frozen towers and layers stay as they were pre-trained."""
        # the trainer itself does so for samplers of single rows only
        self.trainer.datamodule.set_epoch(self.current_epoch)  # type: ignore[attr-defined]
        self.ready.train()
        if self.ready.vision_frozen:
            self.ready.base.get_encoder(modality="image").eval()
        if self._lower is not None:
            self._lower.rest()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step from its position alone, so that a resumed run draws the same dropout masks."""
        # counted here, because callbacks save before this module's own hook at the end of a batch
        self._epoch_batches = batch_idx + 1
        # an epoch that is gone on with in its middle does not start again
        if self.objective is not None:
            self.objective.begin_epoch(self.current_epoch)
        if self._writes and self.ready.states is not None:
            self.ready.states.clear()
        self._seed_step(batch_idx)

    def _seed_step(self, batch_idx: int) -> None:
        position = f"{self.seed}:{self.current_epoch}:{batch_idx}:{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(position.encode(), digest_size=6).digest(), "big"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's loss of a micro-batch, scaled so that the step's gradient is that of the token mean."""
        if self.objective is None:
            raise ConfigError("model.objective is not set; a training stage sets it.")
        accumulate = self.trainer.accumulate_grad_batches
        share = self._step.forward(batch, batch_idx, accumulate)
        if share is None:
            return torch.ones((), device=self.device, requires_grad=True)
        # Lightning divides by the micro-batches of a step, and DDP by the ranks; the share is of the whole step already
        loss = share * self.trainer.world_size * accumulate
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch))
        if self.objective is not None:
            for name, value in self.objective.figures.items():
                self.log(f"train/{name}", value, prog_bar=True, sync_dist=True, batch_size=len(batch))
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the micro-batch's gradient, in pieces where it did not fit in memory."""
        accumulate = self.trainer.accumulate_grad_batches
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        share = self._step.backward(loss, 1.0 if scaler is None else scaler.get_scale(), accumulate)
        if share is not None:
            self.log("train/loss", share * accumulate, prog_bar=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, and where in the epoch the run is."""
        trained = trained_state(self)
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        epoch = self.current_epoch
        place = (epoch + 1, 0) if self.trainer.is_last_batch else (epoch, self._epoch_batches)
        checkpoint["rbft"] = {
            "epoch": place[0],
            "epoch_batches": place[1],
            "processes": self.trainer.world_size,
            "pieces": self._step.pieces.number,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Skip the batches that were computed.

        Raises:
            StageError: They were computed by another number of processes, which cut the epoch in another way.
        """
        place = checkpoint["rbft"]
        if place["processes"] != self.trainer.world_size:
            raise StageError(
                f"this stage was interrupted on {place['processes']} processes and cannot go on with "
                f"{self.trainer.world_size}; set trainer.devices as it was, or add --restart."
            )
        # dropout would draw other masks over whole micro-batches
        self._step.pieces.number = int(place["pieces"])
        self.trainer.datamodule.resume(int(place["epoch"]), int(place["epoch_batches"]))  # type: ignore[attr-defined]

    def in_pieces(self, role: str, work: Callable[[Batch], None], batch: Batch) -> None:
        """Do some work without gradients on a batch of a role, in as many pieces as fit in memory."""
        self._pieces(role).each(work, batch, f"data.eval_batch_size {max(1, len(set(batch.clips)) // 2)}")

    def _pieces(self, role: str, *, alone: bool = True) -> MicroBatchSplit:
        """How batches of a role are cut; processes that hold parts of one model take the same number of passes."""
        if role not in self._cuts:
            whole = alone and self.device_mesh is None
            self._cuts[role] = MicroBatchSplit(lambda index: self._examples(role)[index].record.video, alone=whole)
        return self._cuts[role]

    def _examples(self, role: str) -> Sequence[Example]:
        return self.trainer.datamodule.dataset(role).examples  # type: ignore[attr-defined]
