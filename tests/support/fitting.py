"""A tiny model with a handful of clips under Lightning's own trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.objectives.classification import ClassificationObjective
from rbft.training.module import VLMFineTuner
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.tuning import LoRA, trained_state


@dataclass(frozen=True)
class Stage:
    """What a trainer needs.

    Args:
        model_folder: A tiny model.
        processor: Its processor.
        data: Six clips to train, two to validate, five to test and to write about; connected with a batch size of 2.
    """

    model_folder: str
    processor: ClipProcessor
    data: VideoDataModule

    def connect(self, batch_size: int, accumulate: int = 1) -> None:
        """Cut the steps of an epoch in another way."""
        self.data.batch_size = batch_size
        book = PromptBook(Prompts(), self.data.labels)
        prompt = book.label_prompt()
        rows = {r: [Example(record, prompt) for record in getattr(self.data.splits, r)] for r in ("val", "test")}
        train = ClassificationObjective().examples(self.data.splits.train, book, [])
        self.data.use_processor(self.processor)
        self.data.connect(0, accumulate, train=train, predict=rows["test"], **rows)

    def build(self, **settings) -> VLMFineTuner:
        """A module that is told what the pipeline tells it."""
        options = {"tuning": LoRA(rank=2, dropout=0.1), "objective": ClassificationObjective(), "dtype": "float32"}
        module = VLMFineTuner(self.model_folder, **{**options, **settings})
        module.connect(self.processor, PromptBook(module.prompts, self.data.labels), seed=0)
        return module


def trainer(tmp_path: Path, **settings) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{**quiet, "max_epochs": 1, **settings},
    )


def weights(module: VLMFineTuner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained_state(module.ready).items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
