"""All stages of an experiment, read and checked before any model is loaded."""

from __future__ import annotations

from rich.console import Console

from rbft.data.datamodule import VideoDataModule
from rbft.data.prompt_templates import PromptBook
from rbft.experiment import Experiment
from rbft.pipeline.requirements import require_models, require_settings
from rbft.pipeline.stage_cli import read_stages
from rbft.pipeline.stage_inputs import share_validation, stage_inputs
from rbft.pipeline.video_check import inspect_videos
from rbft.stages.context import Prepared, settle_clips
from rbft.training.module import VLMFineTuner
from rbft.vlm.processing import ClipProcessor


def prepare(experiment: Experiment, console: Console) -> list[Prepared]:
    """Read and check all stages before any model is loaded.

    Raises:
        RBFTError: Anything that would make a stage fail or its result worthless.
    """
    clis = read_stages(experiment)
    books = [PromptBook(cli.model.prompts, cli.datamodule.labels) for cli in clis]
    share_validation(experiment.stages, clis)
    require_settings(experiment.stages, clis)
    models = [cli.model.processor_key for cli in clis]
    loaded = {model: ClipProcessor(*model) for model in dict.fromkeys(models)}
    require_models(experiment.stages, clis)
    processors = [loaded[model] for model in models]
    datas: list[VideoDataModule] = [cli.datamodule for cli in clis]
    for stage, cli, processor in zip(experiment.stages, clis, processors, strict=True):
        settle_clips(stage, cli.model, cli.datamodule, processor)
    inspect_videos(datas, console, [book.prompts.label_texts for book in books])
    prepared: dict[str, Prepared] = {}
    for stage, cli, book, processor in zip(experiment.stages, clis, books, processors, strict=True):
        module: VLMFineTuner = cli.model
        config = cli.resolved()
        module.connect(processor, book, int(config["seed_everything"]))
        done = {name: entry.fingerprint for name, entry in prepared.items()}
        prepared[stage.name] = Prepared(
            stage=stage,
            module=module,
            datamodule=cli.datamodule,
            make_trainer=cli.make_trainer,
            config=config,
            book=book,
            processor=processor,
            inputs=stage_inputs(stage, cli, config, done),
            weights_source=prepared.get(stage.weights_from or ""),
            rationale_source=prepared.get(stage.rationales_from or ""),
            answer_source=prepared.get(stage.answers_from or ""),
        )
    return list(prepared.values())
