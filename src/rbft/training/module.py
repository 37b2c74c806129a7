"""The one LightningModule: its objective decides what training learns; scoring and writing are always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
import torch
from torch import Tensor

from rbft.data.dataset import Example
from rbft.errors import ConfigError, ModelError, StageError
from rbft.evaluation.answering import Answering
from rbft.evaluation.metrics import validation_metrics
from rbft.evaluation.predictions import Prediction
from rbft.objectives.base import Objective
from rbft.rationales.checks.base import Check
from rbft.rationales.controls import Control
from rbft.rationales.prompts import PromptBook, Prompts
from rbft.rationales.quality import Keep, KeepAll, require_distinct, text_checks
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import RationaleWriter
from rbft.training.best import Selection
from rbft.training.checkpoint import not_sharded
from rbft.training.optim import OptimSettings, configure
from rbft.training.scoring import ClosedSetScoring
from rbft.training.sharding import ShardedStrategy, shard
from rbft.vlm.batch import Batch
from rbft.vlm.features import hardware
from rbft.vlm.label_scorer import Scoring
from rbft.vlm.loading import DType, load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.quantize import Quantize
from rbft.vlm.reference import Reference, base_state
from rbft.vlm.strength import TuningStrength
from rbft.vlm.tuning import LoRA, Tuning, load_trained, trained_state


class VLMFineTuner(L.LightningModule):
    """Fine-tunes a video VLM by stages.

    Args:
        vlm: `builtin/tiny`, a local folder, or a hub id.
        revision: Of a hub id; state it, so that the weights cannot change under you.
        dtype: Of the weights; `auto` is the checkpoint's own.
        quantize: `4bit` keeps the language model's linear layers in 4 bits, to train adapters in little memory; needs
            an NVIDIA GPU and the extra `quantize`.
        attn_implementation: Of transformers (sdpa, eager, flash_attention_2); None lets it choose.
        activation_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        tuning: What is trained; None: LoRA with its defaults.
        prompts: The wording of questions and answers.
        objective: What a training stage learns; set by the stage.
        writer: How rationales are written.
        checks: What scores them; None: the checks that need no model.
        keep: Which of them stage 1 is trained on; None: all that are not empty.
        control: What is taken from them before, to find out whether the words matter; None: nothing.
        optim: How weights are updated.
        scoring: How labels are scored.
        answering: How test videos are answered.
        selection: Which weights a training stage hands on.
    """

    def __init__(
        self,
        vlm: str = "builtin/tiny",
        revision: str | None = None,
        dtype: DType = "auto",
        quantize: Quantize = "none",
        attn_implementation: str | None = None,
        activation_checkpointing: bool = False,
        tuning: Tuning | None = None,
        prompts: Prompts = Prompts(),  # noqa: B008 - frozen
        objective: Objective | None = None,
        writer: RationaleWriter = RationaleWriter(),  # noqa: B008 - frozen
        checks: list[Check] | None = None,
        keep: Keep | None = None,
        control: Control | None = None,
        optim: OptimSettings = OptimSettings(),  # noqa: B008 - frozen
        scoring: Scoring = Scoring(),  # noqa: B008 - frozen
        answering: Answering = Answering(),  # noqa: B008 - frozen
        selection: Selection = Selection(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.name, self.revision, self.dtype_, self.attention = vlm, revision, dtype, attn_implementation
        self.activation_checkpointing = activation_checkpointing
        self.tuning = tuning if tuning is not None else LoRA()
        self.quantize = quantize
        if quantize != "none" and not isinstance(self.tuning, LoRA):
            raise ConfigError(f"model.quantize: {quantize} weights cannot be trained; set model.tuning to LoRA.")
        self.prompts, self.objective, self.writer, self.optim = prompts, objective, writer, optim
        self._scoring, self.answering, self.selection = scoring, answering, selection
        self.checks = checks if checks is not None else text_checks()
        self.control = control
        self.keep = keep if keep is not None else KeepAll()
        require_distinct(self.checks)
        # adapters and trained parts only are saved; the base model is read from its own files
        self.strict_loading = False
        self.vlm: VLM | None = None
        self.author = vlm
        self.seed = 0
        self.predictions: list[Prediction] = []
        self.strength = 1.0
        self._tuning: TuningStrength | None = None
        self._keep_base = False
        self._weights: Path | None = None
        self._store: RationaleStore | None = None
        self._epoch_batches = 0

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a checkpoint holds a place in a run and no model, and Lightning would run code in one from a URL."""
        raise NotImplementedError("a checkpoint only resumes its own stage; load the weights of the stage's adapter "
                                  "folder with rbft.vlm.tuning.load_trained")  # fmt: skip

    # -- what the pipeline says before a trainer runs

    def connect(self, processor: ClipProcessor, book: PromptBook, seed: int) -> None:
        """Say which processor and prompts the stage works with."""
        self.processor, self.book, self.seed = processor, book, seed
        self.scoring = ClosedSetScoring(processor, book, self._scoring, self.answering, seed)

    def start_from(self, folder: Path | None, author: str, *, keep_base: bool = False) -> None:
        """Start from the weights an earlier stage left in `folder`; None: the base model.

        Args:
            folder: What the stage left.
            author: Name of the model and of its weights.
            keep_base: Whether the weights are to be scored at a `strength` between the base model's and these.
        """
        self._weights, self.author, self._keep_base = folder, author, keep_base

    def write_to(self, store: RationaleStore) -> None:
        """Where predict puts the rationales it writes."""
        self._store = store

    # -- model

    def configure_model(self) -> None:
        """Load the model once, set up what is trained, and take over earlier weights.

        Called before loaders are made, so this is also where they learn which stored features are of this model.
        """
        if self.vlm is None:
            self.vlm = self._load()
        if self._trainer is not None:
            self._share_features(self.vlm)

    def _load(self) -> VLM:
        anchored = self.objective is not None and self.objective.anchor > 0
        if anchored and self.device_mesh is not None:
            raise ConfigError("model.objective.anchor: trainer.strategy fsdp2 keeps no second model; set it to 0, or "
                              "train with trainer.strategy ddp.")  # fmt: skip
        model = load_model(self.name, self.revision, self.dtype_, self.attention, self.quantize)
        if self.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        tuned = self.tuning.apply(model)
        base = base_state(tuned) if anchored or self._keep_base else {}
        if self._weights is not None:
            load_trained(tuned, self._weights)
            self._tuning = TuningStrength(tuned, base) if self._keep_base else None
        vlm = VLM(tuned, self.processor.pad_id, self.processor.end_ids)
        vlm.reference = Reference(tuned, base) if anchored else None
        if self.device_mesh is not None:
            shard(vlm, self.device_mesh["data_parallel"])
        return vlm

    def _share_features(self, vlm: VLM) -> None:
        """Keep clips encoded while nothing that encodes them is trained."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        vlm.features = data.features if vlm.vision_frozen else None
        computing = [self.trainer.precision, *hardware(self.trainer.strategy.root_device)]
        data.use_vision(None if vlm.features is None else vlm.vision_digest(*computing))

    @property
    def ready(self) -> VLM:
        """The loaded model."""
        assert self.vlm is not None, "configure_model has not run"
        return self.vlm

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule over the steps of this stage."""
        # counted here: the trainer's own estimate builds a loader and loses a resumed loader's place
        steps = self.trainer.datamodule.steps_per_epoch(self.trainer.world_size)  # type: ignore[attr-defined]
        total = self.trainer.max_steps if self.trainer.max_steps > 0 else steps * (self.trainer.max_epochs or 1)
        return configure(self.optim, self.ready, total)

    # -- training

    def on_train_epoch_start(self) -> None:
        """Dropout acts in the parts that are trained; frozen towers stay as they were pre-trained."""
        # the trainer itself does so for samplers of single rows only
        self.trainer.datamodule.set_epoch(self.current_epoch)  # type: ignore[attr-defined]
        self.ready.train()
        if self.ready.vision_frozen:
            self.ready.base.get_encoder(modality="image").eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step from its place alone, so that a resumed run draws the same dropout masks."""
        # counted here, because callbacks save before this module's own hook at the end of a batch
        self._epoch_batches = batch_idx + 1
        place = f"{self.seed}:{self.current_epoch}:{batch_idx}:{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=6).digest(), "big"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's loss of a micro-batch, scaled so that the step's gradient is that of the token mean."""
        if self.objective is None:
            raise ConfigError("model.objective is not set; a training stage sets it.")
        share = self.objective.loss(self.ready, batch)
        # Lightning divides by the micro-batches of a step, and DDP by the ranks; the share is of the whole step already
        loss = share * self.trainer.world_size * self.trainer.accumulate_grad_batches
        if not torch.isfinite(loss):
            names = [self._examples("train")[i].record.path for i in batch.indices]
            raise ModelError(
                f"the loss became {loss.item()} at step {self.global_step}, in the batch of {', '.join(names)}. "
                "Lower model.optim.lr, or set trainer.gradient_clip_val."
            )
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch))
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, and where in the epoch the run is."""
        trained = trained_state(self)
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        epoch = self.current_epoch
        place = (epoch + 1, 0) if self.trainer.is_last_batch else (epoch, self._epoch_batches)
        checkpoint["rbft"] = {"epoch": place[0], "epoch_batches": place[1], "processes": self.trainer.world_size}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Skip the batches that were computed.

        Raises:
            StageError: They were computed by another number of processes, which cut the epoch in another way, or under
                another strategy.
        """
        place = checkpoint["rbft"]
        if "shards" in checkpoint and not isinstance(self.trainer.strategy, ShardedStrategy):
            raise not_sharded("trainer.strategy fsdp2", "as it was")
        if place["processes"] != self.trainer.world_size:
            raise StageError(
                f"this stage was interrupted on {place['processes']} processes and cannot go on with "
                f"{self.trainer.world_size}; set trainer.devices as it was, or add --restart."
            )
        self.trainer.datamodule.resume(int(place["epoch"]), int(place["epoch_batches"]))  # type: ignore[attr-defined]

    # -- scoring the closed set of labels (validation and test)

    def on_validation_epoch_start(self) -> None:
        """Score with dropout off."""
        self._start_scoring("val")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        self._score(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and macro-F1 of all ranks together."""
        self.predictions = self._gather("val")
        for name, value in validation_metrics(self.predictions, self.book.labels).items():
            # the same value on every rank already; the mean over ranks leaves it as it is
            self.log(name, value, prog_bar=True, sync_dist=True, batch_size=1)

    def on_test_epoch_start(self) -> None:
        """Score with dropout off."""
        self._start_scoring("test")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        self._score(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Collect the predictions of all ranks."""
        self.predictions = self._gather("test")

    def _start_scoring(self, role: Literal["val", "test"]) -> None:
        self.ready.eval()
        if self._tuning is not None:
            self._tuning.set(self.strength)
        relative = self._scoring.prior == "blank"
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.scoring.start(self.ready, data.dataset(role).blank().to(self.device) if relative else None)

    def _score(self, batch: Batch, role: str) -> None:
        examples = self._examples(role)
        self.scoring.add(self.ready, batch, [examples[i] for i in batch.indices])

    def _gather(self, role: str) -> list[Prediction]:
        partly = self.trainer.sanity_checking
        return self.scoring.gather(self._examples(role), role, self.trainer.world_size, partly=partly)

    # -- writing rationales (predict)

    def on_predict_start(self) -> None:
        """Write with dropout off."""
        self.ready.eval()

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Write the rationales of a batch and store them at once."""
        assert self._store is not None, "write_to has not been called"
        examples = [self._examples("predict")[i] for i in batch.indices]
        rationales = self.writer.write(self.ready, self.processor, self.book, batch, examples, self.author, self.seed)
        real = {example.record.id for example, w in zip(examples, batch.weights.tolist(), strict=True) if w > 0}
        self._store.append([r for r in rationales if r.id in real], self.global_rank)

    def _examples(self, role: str) -> Sequence[Example]:
        return self.trainer.datamodule.dataset(role).examples  # type: ignore[attr-defined]
