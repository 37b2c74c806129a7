"""The one LightningModule: its objective decides what training learns; scoring and writing are always the same."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn

from rbft.answering.choice import Choice, answer
from rbft.answering.closed_set import ClosedSetScoring
from rbft.answering.settings import Answering, Robustness
from rbft.data.demonstrations import Demonstrations
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.encoders.settings import EncoderSettings
from rbft.errors import ConfigError, StageError
from rbft.evaluation.metrics import validation_metrics
from rbft.evaluation.predictions import Prediction
from rbft.objectives.base import Objective
from rbft.rationales.checks.base import Check
from rbft.rationales.controls import Control
from rbft.rationales.quality import Keep, KeepAll, require_distinct, text_checks
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import Attempt, RationaleWriter
from rbft.training.base_module import TrainingModule
from rbft.training.best_weights import Selection
from rbft.training.feature_pool import FeaturePool
from rbft.training.optim import OptimSettings, configure, parameter_groups, planned_steps
from rbft.vlm.base_weights import Reference, TuningStrength, base_state
from rbft.vlm.batch import Batch
from rbft.vlm.feature_cache import hardware
from rbft.vlm.label_scorer import Scoring
from rbft.vlm.loading import DType, load_model
from rbft.vlm.master_weights import hold_in_float32
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of
from rbft.vlm.parity import require_parity
from rbft.vlm.processing import ClipProcessor, ProcessorKey
from rbft.vlm.prompt import Plain
from rbft.vlm.quantize import Quantize
from rbft.vlm.tuning import LoRA, Tuning, load_trained


class VLMFineTuner(TrainingModule):
    """Fine-tunes a video VLM by stages.

    Args:
        vlm: `builtin/tiny`, a local folder, or a hub id.
        revision: revision of a hub id; state it, so that the weights cannot change under you.
        dtype: dtype of the weights; `auto` is the checkpoint's own. What is trained is held in float32 meanwhile, and
            computed in this type.
        quantize: `4bit` keeps the language model's linear layers in 4 bits, to train adapters in little memory; needs
            an NVIDIA GPU and the extra `quantize`.
        attn_implementation: attention of transformers (sdpa, eager, flash_attention_2); None lets it choose.
        template_arguments: arguments of the model's chat template, for example `{enable_thinking: false}`; None: none.
        activation_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        tuning: what is trained; None: LoRA with its defaults.
        prompts: wording of questions and answers.
        objective: what a training stage learns; set by the stage.
        writer: how rationales are written.
        checks: checks that score rationales; None: those that need no model.
        keep: which rationales stage 1 is trained on; None: all that are not empty.
        control: what is removed from the rationales before, to find out whether the words matter; None: nothing.
        optim: how weights are updated.
        scoring: how labels are scored.
        answering: how test videos are answered.
        selection: which weights a training stage hands on.
        demonstrations: how a stage of kind `demonstrations` tells of labelled videos.
        robustness: on what else a test is measured: degraded clips, and another video after the same rationale.
        encoder: video encoder that a stage of kind `encoder_probe` fits a classifier to.
    """

    def __init__(
        self,
        vlm: str = "builtin/tiny",
        revision: str | None = None,
        dtype: DType = "auto",
        quantize: Quantize = "none",
        attn_implementation: str | None = None,
        template_arguments: dict[str, Plain] | None = None,
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
        demonstrations: Demonstrations = Demonstrations(),  # noqa: B008 - frozen
        robustness: Robustness = Robustness(),  # noqa: B008 - frozen
        encoder: EncoderSettings = EncoderSettings(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(objective)
        self.processor_key: ProcessorKey = (vlm, revision, tuple(sorted((template_arguments or {}).items())))
        self.name, self.revision, self.dtype_, self.attention = vlm, revision, dtype, attn_implementation
        self.activation_checkpointing = activation_checkpointing
        self.tuning = tuning if tuning is not None else LoRA()
        self.quantize = quantize
        if quantize != "none" and not isinstance(self.tuning, LoRA):
            raise ConfigError(f"model.quantize: {quantize} weights cannot be trained; set model.tuning to LoRA.")
        self.prompts, self.writer, self.optim = prompts, writer, optim
        self._scoring, self.answering, self.selection = scoring, answering, selection
        self.checks = checks if checks is not None else text_checks()
        self.control, self.demonstrations, self.robustness = control, demonstrations, robustness
        self.encoder = encoder
        self.keep = keep if keep is not None else KeepAll()
        require_distinct(self.checks)
        self._validates_after_rationales = False
        self.author = vlm
        self.predictions: list[Prediction] = []
        self._strength = 1.0
        self._tuning: TuningStrength | None = None
        self._keep_base = False
        self._weights: Path | None = None
        self._store: RationaleStore | None = None
        self._work: Callable[[VLM, Batch], None] | None = None

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a checkpoint holds no whole model, and Lightning would run code in one from a URL."""
        raise StageError(
            "a checkpoint only resumes its own stage; load the weights of the stage's adapter folder with "
            "rbft.vlm.tuning.load_trained"
        )

    # -- what the pipeline sets before a trainer runs

    def connect(self, processor: ClipProcessor, book: PromptBook, seed: int) -> None:
        """Set the processor and the prompts of the stage."""
        self.processor, self.book, self.seed = processor, book, seed
        if self.objective is not None:
            self.objective.connect(processor, book, seed)
        self.scoring = ClosedSetScoring(processor, book, self._scoring, self.answering, seed)

    @property
    def chooses_after_rationales(self) -> bool:
        """Whether the best weights are those that answer best after their own rationales."""
        return self.selection.weights == "best" and self.objective is not None and self.objective.learns == "rationale"

    def validate_after_rationales(self) -> None:
        """Have each validation video answered after its own rationale, the likeliest text that the model writes."""
        answering = Answering(mode="rationale", max_new_tokens=self.writer.max_new_tokens)
        self.scoring = ClosedSetScoring(self.processor, self.book, self._scoring, answering, self.seed)
        self._validates_after_rationales = True

    def start_from(self, folder: Path | None, author: str, *, keep_base: bool = False) -> None:
        """Start from the weights an earlier stage left in `folder`; None: the base model.

        Args:
            folder: folder with the weights of that stage.
            author: name of the model and of its weights.
            keep_base: whether the weights are scored at a strength between the base model's and these.
        """
        self._weights, self.author, self._keep_base = folder, author, keep_base

    def write_to(self, store: RationaleStore, attempt: Attempt) -> None:
        """Set the store for the rationales that predict writes, and the round of writing."""
        self._store, self._attempt = store, attempt

    def pool_features(self) -> FeaturePool:
        """Have predict pool the visual features of clips instead of writing; gives the pool."""
        pool = FeaturePool()
        self.predict_by(pool.add)
        return pool

    def predict_by(self, work: Callable[[VLM, Batch], None]) -> None:
        """Have predict do this work on each batch instead of writing rationales."""
        self._work = work

    def set_strength(self, strength: float) -> None:
        """Score with weights between the base model's (0) and the tuned ones (1) from the next pass on."""
        self._strength = strength

    # -- model

    def configure_model(self) -> None:
        """Load the model once, set up what is trained, and take over earlier weights.

        Called before loaders are made, so it also tells them which stored features belong to this model.
        """
        if self.vlm is None:
            self.vlm = self._load()
        if self._trainer is not None:
            self._share_features(self.vlm)
            strategy = self._trainer.strategy
            if isinstance(strategy, DDPStrategy) and not self.vlm.vision_frozen:
                # some towers end in weights whose output nothing reads, and DDP would wait for their gradients
                strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

    def load_on(self, device: torch.device) -> VLM:
        """The model where no trainer runs; read straight onto the device, as a trainer has it read."""
        with device:
            self.configure_model()
        return self.ready.to(device)

    def unload(self) -> None:
        """Free the memory of the weights; they are loaded again when they are needed."""
        self.vlm = self._tuning = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self) -> VLM:
        anchored = self.objective is not None and (self.objective.needs_reference or self.objective.anchor > 0)
        model = load_model(self.name, self.revision, self.dtype_, self.attention, self.quantize)
        require_parity(model, self.processor, self.name, str(self.revision), self.quantize)
        if self.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        tuned = self.tuning.apply(model)
        base = base_state(tuned) if anchored or self._keep_base else {}
        # a stage that trains nothing computes with the weights as they will be published
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        compute_dtype = hold_in_float32(tuned) if fitting else None
        if self._weights is not None:
            load_trained(tuned, self._weights)
            self._tuning = TuningStrength(tuned, base) if self._keep_base else None
        vlm = VLM(tuned, self.processor.pad_id, self.processor.end_ids, compute_dtype)
        if anchored:
            assert self.objective is not None
            vlm.reference = Reference(tuned, base_state(tuned) if self.objective.anchor_at == "start" else base)
        if self.device_mesh is not None:
            from rbft.training.sharding import shard

            shard(vlm, self.device_mesh["data_parallel"])
        return vlm

    def _share_features(self, vlm: VLM) -> None:
        """Keep clips encoded while nothing that encodes them is trained."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        vlm.features = data.features if vlm.vision_frozen else None
        computing = [self.trainer.precision, *hardware(self.trainer.strategy.root_device)]
        data.use_vision(None if vlm.features is None else vlm.vision_digest(*computing))

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule over the steps of this stage."""
        # counted here: the trainer's own estimate builds a loader and loses a resumed loader's place
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        steps = data.steps_per_epoch(self.trainer.world_size, self.trainer.limit_train_batches)
        total = planned_steps(steps, self.trainer.max_epochs, self.trainer.max_steps)
        model = self.ready.model
        groups = parameter_groups(self.optim, model.named_parameters(), parts_of(model))
        return configure(self.optim, groups, total)

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
        if self._validates_after_rationales:
            after, names = Choice("rationale", 1.0, 1.0), self.book.labels.names
            self.predictions = [answer(prediction, after, names) for prediction in self.predictions]
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

    def ready_to_score(self) -> VLM:
        """The loaded model with dropout off, its weights at the strength that was set."""
        if self._tuning is not None:
            self._tuning.set(self._strength)
        return self.ready.eval()

    def _start_scoring(self, role: Literal["val", "test"]) -> None:
        self.ready_to_score()
        relative = self._scoring.prior == "blank"
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.scoring.start(self.ready, data.dataset(role).blank().to(self.device) if relative else None)

    def _score(self, batch: Batch, role: str) -> None:
        examples = self._examples(role)
        add = self.scoring.add
        self.in_pieces(role, lambda part: add(self.ready, part, [examples[i] for i in part.indices]), batch)

    def _gather(self, role: str) -> list[Prediction]:
        partly = self.trainer.sanity_checking
        return self.scoring.gather(self._examples(role), role, self.trainer.world_size, partly=partly)

    # -- writing rationales (predict)

    def on_predict_start(self) -> None:
        """Write with dropout off, by weights at the strength that was set."""
        self.ready_to_score()

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Write the rationales of a batch and store them at once, or do what `predict_by` said."""
        self.in_pieces("predict", self._write if self._work is None else partial(self._work, self.ready), batch)

    def _write(self, batch: Batch) -> None:
        assert self._store is not None, "write_to has not been called"
        examples = [self._examples("predict")[i] for i in batch.indices]
        rationales = self.writer.write(
            self.ready, self.processor, self.book, batch, examples, self.author, self.seed, self._attempt
        )
        real = {example.record.id for example, w in zip(examples, batch.weights.tolist(), strict=True) if w > 0}
        self._store.append([r for r in rationales if r.id in real], self.global_rank)
