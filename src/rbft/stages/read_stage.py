"""A stage whose configuration was read: what suffices to tell whether it is done and what it found."""

from __future__ import annotations

from typing import Protocol

from rbft.data.datamodule import VideoDataModule
from rbft.data.prompt_templates import PromptBook
from rbft.experiment import Stage
from rbft.training.module import VLMFineTuner


class ReadStage(Protocol):
    """What is known of a stage before the files of its model are read.

    Args:
        stage: the stage.
        module: its LightningModule.
        datamodule: its LightningDataModule.
        book: the experiment's prompts for the data set's classes.
        fingerprint: hash of everything that its result depends on.
    """

    @property
    def stage(self) -> Stage: ...  # noqa: D102
    @property
    def module(self) -> VLMFineTuner: ...  # noqa: D102
    @property
    def datamodule(self) -> VideoDataModule: ...  # noqa: D102
    @property
    def book(self) -> PromptBook: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
