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
        tested = of[stage.mixes[0]]
        answering, val = tested.model.answering, tested.datamodule.splits.val
        if not answering.crossfits and not (val and (answering.calibrate or answering.needs_validation)):
            raise ConfigError(
                f"the stage {stage.name!r} chooses the weight of {stage.mixes[1]!r} on labelled videos, and "
                f"{stage.mixes[0]!r} answers none. Set model.answering.choose_on to crossfit in the layer of "
                f"{stage.mixes[0]!r}, or state stages.{stage.name}.probe_weight."
            )
