"""A stage whose configuration was read: what suffices to tell whether it is done and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rbft.runs.stage_record import fingerprint

if TYPE_CHECKING:
    from rbft.data.datamodule import VideoDataModule
    from rbft.data.prompt_templates import PromptBook
    from rbft.experiment import Stage
    from rbft.training.module import VLMFineTuner


@dataclass(frozen=True)
class ReadStage:
    """What is known of a stage before the files of its model are read.

    Args:
        stage: the stage.
        module: its LightningModule.
        datamodule: its LightningDataModule.
        book: the experiment's prompts for the data set's classes.
        inputs: everything that its result depends on.
    """

    stage: Stage
    module: VLMFineTuner
    datamodule: VideoDataModule
    book: PromptBook
    inputs: dict[str, Any]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that its result depends on."""
        return fingerprint(self.inputs)
