"""What choosing on labelled videos needs of the stages before it; refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rbft.errors import ConfigError
from rbft.experiment import ASKING_KINDS

if TYPE_CHECKING:
    from rbft.experiment import Stage
    from rbft.pipeline.stage_cli import StageCLI


def require_unseen(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to cross-fit stages whose inputs have seen the labels of the fold that is held back.

    Raises:
        ConfigError: Names the stages and what to change.
    """
    of = {stage.name: (stage, cli) for stage, cli in zip(stages, clis, strict=True)}
    for stage, cli in of.values():
        if stage.kind not in ASKING_KINDS or not cli.model.answering.crossfits:
            continue
        source = stage.weights_from
        while source is not None:
            before, trained = of[source]
            writer = None if before.rationales_from is None else of[before.rationales_from][0]
            why = ""
            if before.answers_from is not None:
                why = f"learns answers of {before.answers_from!r}, which was made by weights that saw all labels"
            elif writer is not None and writer.weights_from is not None:
                why = f"learns rationales that {writer.name!r} wrote with weights that saw all labels"
            elif trained.model.selection.weights == "best":
                why = "keeps the epoch that validates best (model.selection), and no video validates"
            if why:
                raise ConfigError(
                    f"the stage {stage.name!r}: model.answering: crossfit trains {before.name!r} again without a "
                    f"part of the labelled videos, and that stage {why}. Choose another method, or choose "
                    "on validation videos (mode or choose_on validation)."
                )
            source = before.weights_from


def require_labelled(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to choose the weight of a mixture where no labelled video is answered for it.

    Raises:
        ConfigError: Names the stages and the keys.
    """
    of = {stage.name: cli for stage, cli in zip(stages, clis, strict=True)}
    for stage in stages:
        if stage.kind != "combine" or stage.probe_weight is not None:
            continue
        test, probe = stage.predictions_from
        answering, val = of[test].model.answering, of[test].datamodule.splits.val
        if not answering.crossfits and not (val and (answering.calibrate or answering.needs_validation)):
            raise ConfigError(
                f"the stage {stage.name!r} chooses the weight of {probe!r} on labelled videos, and {test!r} answers "
                f"none. Set model.answering.choose_on to crossfit in the layer of {test!r}, or state "
                f"stages.{stage.name}.probe_weight."
            )


def require_texts(stages: Sequence[Stage], clis: Sequence[StageCLI]) -> None:
    """Refuse to classify the texts of a test that does not write one about each video.

    Raises:
        ConfigError: Names the stages and the keys.
    """
    of = {stage.name: cli for stage, cli in zip(stages, clis, strict=True)}
    for stage in stages:
        if stage.kind != "rationale_probe":
            continue
        written = stage.predictions_from[0]
        answering = of[written].model.answering
        if answering.mode in ("direct", "gated", "argued") or answering.samples > 1:
            raise ConfigError(
                f"the stage {stage.name!r} classifies the text that {written!r} writes about each test video, and "
                f"under model.answering.mode {answering.mode} with samples {answering.samples} there is not one for "
                f"each. Set mode to rationale and samples to 1 in the layer of {written!r}."
            )
