"""One stage with its own module, data and trainer, as the pipeline makes them, on clips in folders of classes."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.data.formats import ClassFolders
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.evaluation.predictions import Prediction
from rbft.objectives.classification import ClassificationObjective
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import RationaleWriter
from rbft.training.module import VLMFineTuner
from rbft.training.optim import OptimSettings
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.tuning import LoRA, Tuning, trained_state

WORDING = Prompts(label_question="which event is it ?", rationale_question="describe the video")
ADAPTER = LoRA(rank=2, dropout=0.1)


class Stage:
    """One stage with its own module, data and trainer, as the pipeline makes them.

    Decoded clips are not kept, so that decoding shows.
    """

    def __init__(self, root: Path, cache: Path, tuning: Tuning = ADAPTER, vlm: str = "builtin/tiny", **settings):
        processor = ClipProcessor(vlm)
        self.data = VideoDataModule(
            str(root),
            ClassFolders(),
            num_frames=4,
            eval_batch_size=2,
            cache_dir=str(cache),
            cache_clips=False,
            **{"batch_size": 2, **settings},
        )
        book = PromptBook(WORDING, self.data.labels)
        self.module = VLMFineTuner(
            vlm,
            dtype="float32",
            tuning=tuning,
            prompts=WORDING,
            objective=ClassificationObjective(),
            writer=RationaleWriter(max_new_tokens=4),
            optim=OptimSettings(lr=1e-2),
        )
        self.module.connect(processor, book, seed=0)
        splits, prompt = self.data.splits, book.label_prompt()
        rows = {role: [Example(record, prompt) for record in getattr(splits, role)] for role in ("val", "test")}
        train = ClassificationObjective().examples(splits.train, book, [])
        self.data.use_processor(processor)
        self.data.connect(0, 1, train=train, predict=rows["test"], **rows)

    def trainer(self, **settings) -> L.Trainer:
        return L.Trainer(
            accelerator="cpu",
            devices=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            **{"max_epochs": 2, **settings},
        )

    def fit(self, **settings) -> dict[str, torch.Tensor]:
        L.seed_everything(0, verbose=False)
        self.trainer(**settings).fit(self.module, datamodule=self.data)
        return {name: value.clone() for name, value in trained_state(self.module.ready).items()}

    def test(self) -> list[Prediction]:
        self.trainer().test(self.module, datamodule=self.data, verbose=False)
        return self.module.predictions

    def write(self, folder: Path) -> list[str]:
        store = RationaleStore(folder)
        self.module.write_to(store, self.module.writer.attempts("blind")[0])
        self.trainer().predict(self.module, datamodule=self.data, return_predictions=False)
        return [rationale.written for rationale in store.collect(self.data.splits.test, range(1))]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
