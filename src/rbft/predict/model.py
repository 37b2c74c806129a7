"""The model of a finished run, loaded once: questions about videos in, predictions and unreadable videos out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example, ExampleDataset
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord, part_name
from rbft.data.sampler import Draw, EvaluationSampler
from rbft.errors import ConfigError, StageError, VideoError
from rbft.evaluation.predictions import Prediction
from rbft.files import expanded
from rbft.pipeline.stage_cli import StageCLI
from rbft.predict.run_settings import Recorded
from rbft.training.feature_pool import FeaturePool
from rbft.training.module import VLMFineTuner
from rbft.video.container import limit_reading, reading_limit
from rbft.video.content import content_digest
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.feature_cache import hardware
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor

Report = Callable[[str, int, int], None]
"""Called with (what, done, total) as work goes on."""


class WarmModel:
    """The weights, frames and prompts of a run's test, on one device.

    Args:
        recorded: The run.
        flags: Settings that decide how fast and where it computes.

    Raises:
        RBFTError: The model cannot be had, or a setting does not go with answering.
    """

    def __init__(self, recorded: Recorded, flags: Sequence[str] = ()) -> None:
        # one device computes one video, whatever the run was trained on; it may be chosen by the flags
        alone = [
            "--trainer.devices",
            "1",
            "--trainer.num_nodes",
            "1",
            "--trainer.strategy",
            "auto",
            "--trainer.logger",
            "null",
        ]
        cli = StageCLI([*recorded.arguments(), *alone, *flags])
        self.data: VideoDataModule = cli.datamodule
        self.module: VLMFineTuner = cli.model
        self.recorded_root = expanded(cli.config["data"]["root"])
        module, choice = self.module, recorded.choice
        if cli.config["model"]["scoring"]["prior"] == "blank" and recorded.prior is None:
            raise StageError(
                f"{recorded.folder}: the run does not say what a blank clip scores; test it again with "
                f"`rbft fit --stage {recorded.stage.name} --restart`."
            )
        self.seed = int(cli.resolved()["seed_everything"])
        self.processor = ClipProcessor(*module.processor_key)
        self.data.use_processor(self.processor)
        self.trained = recorded.weights is not None
        self.book = PromptBook(module.prompts, recorded.labels)
        module.connect(self.processor, self.book, self.seed)
        if recorded.prior is not None:
            scorer = module.scoring.scorer
            module.scoring.scorer = replace(scorer, prior=torch.tensor(recorded.prior, dtype=torch.float32))
        self._trainer = cli.make_trainer(
            callbacks=[],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        if self._trainer.world_size > 1:
            raise ConfigError(
                "trainer.devices: predicting computes on one device; give each its own part of the "
                "videos to use several."
            )
        self.device = self._trainer.strategy.root_device
        module.start_from(recorded.weights, "", keep_base=module.answering.strength != 1)
        module.set_strength(choice.strength)
        if choice.gate is not None:
            module.scoring.gate = choice.gate
        self._vlm: VLM | None = None
        self._vision: str | None = None

    @property
    def vlm(self) -> VLM:
        """The weights, loaded when they are first asked for.

        Raises:
            RBFTError: They cannot be loaded.
        """
        if self._vlm is None:
            self.module.load_on(self.device)
            vlm = self.module.ready_to_score()
            vlm.features = self.data.features if vlm.vision_frozen else None
            computing = [self._trainer.precision, *hardware(self.device)]
            self._vision = None if vlm.features is None else vlm.vision_digest(*computing)
            self._vlm = vlm
        return self._vlm

    def release(self) -> None:
        """Give the memory of the weights back; they are loaded again when they are asked for."""
        self._vlm = None
        self.module.unload()

    @property
    def writes(self) -> bool:
        """Whether the run answers after its own rationale, so that there always is one."""
        return self.module.answering.writes

    def ask(
        self, records: Sequence[VideoRecord], root: Path, *, report: Report, rationale: bool = False
    ) -> tuple[dict[str, Prediction], dict[str, str]]:
        """Answer every record in all ways that the run answers in.

        Args:
            records: Videos, or parts of them.
            root: folder of the videos; nothing outside of it is read.
            report: function that is called with the progress.
            rationale: whether the model writes a rationale even where the run answers directly.

        Returns:
            Predictions, and why the others cannot be read, by id of the record.

        Raises:
            ConfigError: The run asks for rationales in the words it asks for labels in.
        """
        scoring = self.module.scoring
        if rationale and self.book.blind_prompt() == self.book.label_prompt():
            raise ConfigError(
                "--rationale: the run's rationale question is its label question "
                "(model.prompts.rationale_question), so the model was never asked why."
            )
        rows = scoring.examples(records, reasoned=self.writes or rationale)
        if not rows:
            return {}, {}
        vlm = self.vlm
        if self.module.answering.temperature > 0:
            scoring.drawn_as = {record.id: self._drawn_as(root, record) for record in records}
        scoring.start(vlm, None)
        errors = self._each_batch(
            rows,
            root,
            lambda batch: scoring.add(vlm, batch, [rows[i] for i in batch.indices]),
            report,
            "videos answered",
        )
        predictions = scoring.gather(rows, "test", 1, partly=True)
        return {prediction.id: prediction for prediction in predictions}, errors

    def _drawn_as(self, root: Path, record: VideoRecord) -> str:
        """What sampling about a video is seeded by: its path in the run's data set, as in the test, else its content.

        So it does not depend on where a video lies, and on what it is asked about together with.
        """
        file, own = (root / record.path).resolve(), self.recorded_root.resolve()
        if file.is_relative_to(own):
            return part_name(file.relative_to(own).as_posix(), record.part)
        try:
            return part_name(content_digest(file), record.part)
        except (OSError, VideoError):
            return record.id  # it cannot be read, and is told so when that is tried

    def look(
        self, records: Sequence[VideoRecord], root: Path, *, report: Report
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
        """Mean-pooled visual features of every record, as the linear probe gets them.

        Args:
            records: Videos, or parts of them.
            root: folder of the videos; nothing outside of it is read.
            report: function that is called with the progress.

        Returns:
            Features (H,), and why the others cannot be read, by id of the record.
        """
        rows = [Example(record, self.book.label_prompt()) for record in records]
        if not rows:
            return {}, {}
        pool = FeaturePool()
        errors = self._each_batch(rows, root, partial(pool.add, self.vlm), report, "videos looked at")
        return pool.by_id(rows), errors

    def _each_batch(
        self, rows: Sequence[Example], root: Path, use: Callable[[Batch], None], report: Report, what: str
    ) -> dict[str, str]:
        """Call `use` with each batch of questions on the device; why some videos cannot be read, by id."""
        data = self.data.at(root)
        data.connect(self.seed, 1, test=rows)
        dataset = data.dataset("test")
        dataset.use_vision(self._vision)
        errors: dict[str, str] = {}
        done = 0
        for batch, failed in self._batches(dataset):
            done += len(set(batch.clips if batch is not None else ())) + len(failed)
            errors |= {rows[dataset.clips[clip][0]].record.id: why for clip, why in failed.items()}
            if batch is not None:
                with torch.inference_mode(), self._trainer.precision_plugin.forward_context():
                    use(batch.to(self.device))
            report(what, min(done, len(dataset)), len(dataset))
        return errors

    def _batches(self, dataset: ExampleDataset) -> DataLoader[Any]:
        sampler = EvaluationSampler(len(dataset), self.data.eval_batch_size, 0, 1)
        return DataLoader(
            _Forgiving(dataset),
            batch_sampler=sampler,
            collate_fn=_together,
            num_workers=min(self.data.num_workers, len(sampler)),
            worker_init_fn=partial(_start_worker, seconds=reading_limit()),
            pin_memory=self.device.type == "cuda",
        )


class _Read(NamedTuple):
    """The rows of a clip, or why it cannot be read."""

    clip: int
    items: list[Item]
    error: str | None


class _Forgiving(Dataset[_Read]):
    """Rows of a data set, an unreadable video being an answer of its own: the others are not held up by it."""

    def __init__(self, dataset: ExampleDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, draw: Draw) -> _Read:
        try:
            return _Read(draw.clip, self._dataset[draw], None)
        except VideoError as error:
            return _Read(draw.clip, [], str(error))


def _together(clips: Sequence[_Read]) -> tuple[Batch | None, dict[int, str]]:
    """The rows that could be read, and why others could not be, by number of the clip."""
    read = [entry.items for entry in clips if entry.error is None]
    return collate(read) if read else None, {entry.clip: entry.error for entry in clips if entry.error is not None}


def _start_worker(_: int, seconds: float) -> None:
    """A worker decodes with one thread, as more only compete with the other workers, and within the same limit.

    Ctrl-C in a terminal reaches it, too; what becomes of it is for the process to say that it works for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    limit_reading(seconds)
