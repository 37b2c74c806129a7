"""What an experiment's models make of its data set: classes they cannot score, and what its stages will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rbft.data.findings import Finding
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError, ModelError
from rbft.estimate.clip_costs import Clips, StageParts
from rbft.estimate.device import Device
from rbft.estimate.estimate import Estimator
from rbft.estimate.report import memory_findings
from rbft.estimate.stage_estimate import StageEstimate
from rbft.experiment import Experiment
from rbft.pipeline.requirements import require_encoder
from rbft.pipeline.stage_cli import StageCLI
from rbft.stages.context import settle_clips
from rbft.vlm.cost import UnknownCostError
from rbft.vlm.processing import ClipProcessor, ProcessorKey


@dataclass(frozen=True)
class ModelCheck:
    """What was found.

    Args:
        findings: Classes that cannot be scored, models that cannot be used, memory that does not suffice.
        notes: what was not checked, and why.
        device: device that costs were estimated for.
        clips: The clips as the last stage's model gets them; None where there is something to correct first.
        estimates: estimates of the stages; empty where there is something to correct first.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    device: Device
    clips: Clips | None = None
    estimates: tuple[StageEstimate, ...] = ()


def check_models(experiment: Experiment, clis: Sequence[StageCLI]) -> ModelCheck:
    """Look at all stages.

    Args:
        experiment: experiment that will run.
        clis: Module and data of each stage, the data with labels, splits and facts.
    """
    estimator = Estimator.here(clis[-1].resolved()["trainer"])
    device = estimator.device
    processors: dict[ProcessorKey, ClipProcessor] = {}
    parts: list[StageParts] = []
    findings: dict[Finding, None] = {}  # stages mostly share their model
    for stage, cli in zip(experiment.stages, clis, strict=True):
        module, data, config = cli.model, cli.datamodule, cli.resolved()
        key = module.processor_key
        try:
            book = PromptBook(module.prompts, data.labels)
            if key not in processors:
                processors[key] = ClipProcessor(*key)
            require_encoder(stage, cli)
        except DataError as error:
            findings[Finding("unscorable", str(error), ())] = None
            continue
        except (ModelError, ConfigError) as error:
            findings[Finding("model", str(error), ())] = None
            continue
        unscored = unscorable(book, processors[key], data.records)
        findings |= dict.fromkeys(unscored)
        if not unscored:
            module.connect(processors[key], book, int(config["seed_everything"]))
            parts.append(StageParts(stage, module, data, config, book, processors[key]))
    if findings:
        return ModelCheck(
            tuple(findings),
            ("what a run will cost was not estimated, as there are labels or a model to correct first.",),
            device,
        )
    try:
        for part in parts:
            settle_clips(part.stage, part.module, part.data, part.processor)
        asked = [part for part in parts if part.stage.kind != "encoder_probe"]
        clips, estimates = estimator.clips(asked[-1]) if asked else None, estimator.stages(parts)
    except UnknownCostError as error:
        return ModelCheck((), (str(error),), device)
    except (ModelError, ConfigError) as error:
        return ModelCheck((Finding("model", str(error), ()),), (), device)
    return ModelCheck(tuple(memory_findings(estimates, device)), (), device, clips, tuple(estimates))


def unscorable(book: PromptBook, processor: ClipProcessor, records: Sequence[VideoRecord]) -> list[Finding]:
    """Classes whose texts the model would take for something else than text, or cannot tell apart.

    Args:
        book: The experiment's prompts.
        processor: The model's.
        records: All videos, of which those of such classes are named.
    """
    texts = dict(zip(book.labels.names, book.texts, strict=True))

    def finding(names: Sequence[str], message: str) -> Finding:
        return Finding("unscorable", message, tuple(record.id for record in records if record.label in names))

    special = []
    for name, text in texts.items():
        try:
            processor.check_plain(text, f"the class {name!r}")
        except ConfigError as error:
            special.append(finding([name], f"{error} Set model.prompts.label_texts for it."))
    if special:
        return special  # no prompt that lists the classes can be made
    try:
        ids = {name: tuple(processor.target_ids(book.label_prompt(), text).tolist()) for name, text in texts.items()}
    except (ConfigError, ModelError) as error:
        return [Finding("model", str(error), ())]
    same: dict[tuple[int, ...], list[str]] = {}
    for name, tokens in ids.items():
        same.setdefault(tokens, []).append(name)
    return [
        finding(
            names,
            f"the model reads the classes {', '.join(map(repr, names))} as the same tokens. Set "
            "model.prompts.label_texts for all but one of them.",
        )
        for names in same.values()
        if len(names) > 1
    ]
