"""All stages of an experiment, read and checked before any model is loaded."""

from __future__ import annotations

from rich.console import Console

from rbft.experiment import Experiment
from rbft.pipeline.requirements import require_models, require_settings
from rbft.pipeline.stage_cli import read_stages
from rbft.pipeline.trainer_checks import require_machine
from rbft.pipeline.video_check import inspect_videos
from rbft.stages.read_stage import ReadStage
from rbft.vlm.processing import ClipProcessor


def prepare(experiment: Experiment, console: Console, *, here: bool = False) -> list[ReadStage]:
    """Read and check all stages before any model is loaded.

    Args:
        experiment: experiment to read.
        console: console to show progress on.
        here: whether it is going to run on this machine, which must have the devices then.

    Raises:
        RBFTError: Anything that would make a stage fail or its result worthless.
    """
    stages = read_stages(experiment)
    require_settings(stages)
    for entry in stages if here else ():
        require_machine(entry)
    processors = {key: ClipProcessor(*key) for key in dict.fromkeys(entry.module.processor_key for entry in stages)}
    require_models(stages)
    for entry in stages:
        entry.connect(processors[entry.module.processor_key])
    texts = [entry.module.prompts.label_texts for entry in stages]
    inspect_videos([entry.datamodule for entry in stages], console, texts)
    return stages
