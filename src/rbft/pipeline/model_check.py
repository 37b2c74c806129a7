"""What an experiment's models make of its data set: classes they cannot score, and what its stages will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rbft.data.findings import Finding
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError, ModelError
from rbft.estimate.clip_costs import Clips
from rbft.estimate.device import Device
from rbft.estimate.estimate import Estimator
from rbft.estimate.report import memory_findings
from rbft.estimate.stage_cost import StageEstimate
from rbft.pipeline.method_requirements import require_method
from rbft.pipeline.requirements import require_models, require_stage
from rbft.stages.read_stage import ReadStage
from rbft.vlm.cost import UnknownCostError
from rbft.vlm.processing import ClipProcessor, ProcessorKey


@dataclass(frozen=True)
class ModelCheck:
    """What was found.

    Args:
        findings: classes that cannot be scored, models and settings that cannot be used, memory that does not suffice.
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


def check_models(stages: Sequence[ReadStage]) -> ModelCheck:
    """Look at all stages.

    Args:
        stages: stages of the experiment, their data with labels, splits and facts.
    """
    estimator = Estimator.here(stages[-1].config["trainer"])
    device = estimator.device
    processors: dict[ProcessorKey, ClipProcessor] = {}
    findings: dict[Finding, None] = {}  # stages mostly share their model
    for entry in stages:
        key = entry.module.processor_key
        try:
            # before its model is looked for: classes that no prompt can name
            book = entry.book
            if key not in processors:
                processors[key] = ClipProcessor(*key)
            require_stage(entry)
        except DataError as error:
            findings[Finding("unscorable", str(error), ())] = None
            continue
        except (ModelError, ConfigError) as error:
            findings[Finding("model", str(error), ())] = None
            continue
        findings |= dict.fromkeys(unscorable(book, processors[key], entry.datamodule.records))
    if not findings:
        try:
            require_method(stages)
            require_models(stages)
        except (ModelError, ConfigError) as error:
            findings[Finding("model", str(error), ())] = None
    if findings:
        return ModelCheck(
            tuple(findings),
            ("what a run will cost was not estimated, as there are labels, settings or a model to correct first.",),
            device,
        )
    try:
        for entry in stages:
            entry.connect(processors[entry.module.processor_key])
        asked = [entry for entry in stages if entry.stage.uses_model]
        clips, estimates = estimator.clips(asked[-1]) if asked else None, estimator.stages(stages)
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
