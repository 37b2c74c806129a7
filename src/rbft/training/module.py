"""The one LightningModule: its objective decides what training learns; scoring and writing are always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from rbft.data.dataset import Example
from rbft.errors import ConfigError, ModelError, StageError
from rbft.evaluation.metrics import validation_metrics
from rbft.evaluation.predictions import Prediction, probabilities
from rbft.objectives.base import Objective
from rbft.rationales.prompts import PromptBook, Prompts
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import RationaleWriter
from rbft.training.optim import OptimSettings, configure
from rbft.vlm.batch import Batch
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.loading import DType, load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.tuning import LoRA, Tuning, load_trained, trained_state


class VLMFineTuner(L.LightningModule):
    """Fine-tunes a video VLM by stages.

    Args:
        vlm: `builtin/tiny`, a local folder, or a hub id.
        revision: Of a hub id; state it, so that the weights cannot change under you.
        dtype: Of the weights; `auto` is the checkpoint's own.
        attn_implementation: Of transformers (sdpa, eager, flash_attention_2); None lets it choose.
        activation_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        tuning: What is trained; None: LoRA with its defaults.
        prompts: The wording of questions and answers.
        objective: What a training stage learns; set by the stage.
        writer: How rationales are written.
        optim: How weights are updated.
        max_score_rows: Rows (clips x labels) scored at a time; bounds memory.
    """

    def __init__(
        self,
        vlm: str = "builtin/tiny",
        revision: str | None = None,
        dtype: DType = "auto",
        attn_implementation: str | None = None,
        activation_checkpointing: bool = False,
        tuning: Tuning | None = None,
        prompts: Prompts = Prompts(),  # noqa: B008 - frozen
        objective: Objective | None = None,
        writer: RationaleWriter = RationaleWriter(),  # noqa: B008 - frozen
        optim: OptimSettings = OptimSettings(),  # noqa: B008 - frozen
        max_score_rows: int = 256,
    ) -> None:
        super().__init__()
        if max_score_rows < 1:
            raise ConfigError(f"model.max_score_rows: {max_score_rows} must be at least 1.")
        self.name, self.revision, self.dtype_, self.attention = vlm, revision, dtype, attn_implementation
        self.activation_checkpointing = activation_checkpointing
        self.tuning = tuning if tuning is not None else LoRA()
        self.prompts, self.objective, self.writer, self.optim = prompts, objective, writer, optim
        self.max_score_rows = max_score_rows
        # adapters and trained parts only are saved; the base model is read from its own files
        self.strict_loading = False
        self.vlm: VLM | None = None
        self.author = vlm
        self.seed = 0
        self.predictions: list[Prediction] = []
        self._scored: list[tuple[int, list[float]]] = []
        self._weights: Path | None = None
        self._store: RationaleStore | None = None
        self._epoch_batches = 0

    # -- what the pipeline says before a trainer runs

    def connect(self, processor: ClipProcessor, book: PromptBook, seed: int) -> None:
        """Say which processor and prompts the stage works with."""
        self.processor, self.book, self.seed = processor, book, seed
        prompt = book.label_prompt()
        targets = tuple(processor.target_ids(prompt, text) for text in book.texts)
        seen: dict[tuple[int, ...], str] = {}
        for name, ids in zip(book.labels.names, targets, strict=True):
            other = seen.setdefault(tuple(ids.tolist()), name)
            if other != name:
                raise ConfigError(f"the model reads the classes {other!r} and {name!r} as the same tokens; "
                                  "set model.prompts.label_texts for one of them.")  # fmt: skip
        self.scorer = LabelScorer(targets, self.max_score_rows)

    def start_from(self, folder: Path | None, author: str) -> None:
        """Start from the weights an earlier stage left in `folder`; None: the base model."""
        self._weights, self.author = folder, author

    def write_to(self, store: RationaleStore) -> None:
        """Where predict puts the rationales it writes."""
        self._store = store

    # -- model

    def configure_model(self) -> None:
        """Load the model once, set up what is trained, and take over earlier weights."""
        if self.vlm is not None:
            return
        model = load_model(self.name, self.revision, self.dtype_, self.attention)
        if self.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        tuned = self.tuning.apply(model)
        if self._weights is not None:
            load_trained(tuned, self._weights)
        self.vlm = VLM(tuned, self.processor.pad_id, self.processor.end_ids)

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
            StageError: They were computed by another number of processes, which cut the epoch in another way.
        """
        place = checkpoint["rbft"]
        if place["processes"] != self.trainer.world_size:
            raise StageError(
                f"this stage was interrupted on {place['processes']} processes and cannot go on with "
                f"{self.trainer.world_size}; set trainer.devices as it was, or add --restart."
            )
        self.trainer.datamodule.resume(int(place["epoch"]), int(place["epoch_batches"]))  # type: ignore[attr-defined]

    # -- scoring the closed set of labels (validation and test)

    def on_validation_epoch_start(self) -> None:
        """Score with dropout off."""
        self._scored = []
        self.ready.eval()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and macro-F1 of all ranks together."""
        self.predictions = self._gather("val")
        for name, value in validation_metrics(self.predictions, self.book.labels).items():
            # the same value on every rank already; the mean over ranks leaves it as it is
            self.log(name, value, prog_bar=True, sync_dist=True, batch_size=1)

    def on_test_epoch_start(self) -> None:
        """Score with dropout off."""
        self._scored = []
        self.ready.eval()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        """Collect the predictions of all ranks."""
        self.predictions = self._gather("test")

    def _score(self, batch: Batch) -> None:
        scores = self.scorer(self.ready, batch.prompts).double().cpu().tolist()
        for index, weight, row in zip(batch.indices, batch.weights.tolist(), scores, strict=True):
            if weight > 0:
                self._scored.append((index, row))

    def _gather(self, role: str) -> list[Prediction]:
        """One prediction for each video of a role, in order, the same on every rank."""
        parts: list[Any] = [self._scored]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            dist.all_gather_object(parts, self._scored)
        rows = dict(row for part in parts for row in part)
        examples = self._examples(role)
        if not self.trainer.sanity_checking and sorted(rows) != list(range(len(examples))):
            raise ModelError(f"{len(rows)} of {len(examples)} {role} videos were scored; trainer.limit_{role}_batches "
                             "must not be set, because a figure of a part would pass for the whole.")  # fmt: skip
        names, found = self.book.labels.names, []
        for index in sorted(rows):
            record, scores = examples[index].record, rows[index]
            chances = probabilities(scores)
            predicted = names[chances.index(max(chances))]
            found.append(Prediction(record.id, record.path, record.label, predicted, chances, tuple(scores)))
        return found

    # -- writing rationales (predict)

    def on_predict_start(self) -> None:
        """Write with dropout off."""
        self.ready.eval()

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Write the rationales of a batch and store them at once."""
        assert self._store is not None, "write_to has not been called"
        examples = [self._examples("predict")[i] for i in batch.indices]
        # seeded by the batch's first video, so that a resumed run writes what an undisturbed one would have
        place = f"{self.seed}:{examples[0].record.id}"
        seed = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=6).digest(), "big")
        rationales = self.writer.write(self.ready, self.processor, self.book, batch, examples, self.author, seed)
        real = {example.record.id for example, w in zip(examples, batch.weights.tolist(), strict=True) if w > 0}
        self._store.append([r for r in rationales if r.id in real], self.global_rank)

    def _examples(self, role: str) -> Sequence[Example]:
        return self.trainer.datamodule.dataset(role).examples  # type: ignore[attr-defined]
