"""What a stage cannot do where its weights are sharded over processes (`trainer.strategy: fsdp2`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbft.errors import ConfigError
from rbft.experiment import ASKING_KINDS
from rbft.vlm.sharded import shards

if TYPE_CHECKING:
    from rbft.experiment import Stage
    from rbft.pipeline.stage_cli import StageCLI


def require_unsharded(stage: Stage, cli: StageCLI) -> None:
    """Refuse a stage under `trainer.strategy: fsdp2` that needs whole weights or as many passes on each process.

    Raises:
        ConfigError: Names the stage, the keys and what to set instead.
    """
    if not shards(cli.config["trainer"]["strategy"]):
        return
    if cli.model.quantize != "none":
        raise ConfigError(
            "model.quantize and trainer.strategy fsdp2 exclude each other: weights in 4 bits are not "
            "sharded over processes; use trainer.strategy ddp."
        )
    if stage.kind in ASKING_KINDS or stage.kind == "answer":
        _require_direct(stage, cli)
    if stage.kind == "write":
        _require_one_attempt(stage, cli)
    if stage.trains:
        _require_plain_objective(stage, cli)


def _require_direct(stage: Stage, cli: StageCLI) -> None:
    """Answers after a rationale read the model differently often on each process; a strength needs weights whole."""
    answering = cli.model.answering
    if answering.writes or answering.strength != 1:
        raise ConfigError(
            f"the stage {stage.name!r}: trainer.strategy fsdp2 answers directly and at full strength only, and "
            f"model.answering.mode is {answering.mode}, strength {answering.strength}. Set "
            "`trainer: {strategy: ddp}` in the layer of this stage, so that it has whole weights. A flag beats layers, "
            "so state fsdp2 in the file."
        )


def _require_one_attempt(stage: Stage, cli: StageCLI) -> None:
    """No process could find out between attempts at writing what is missing."""
    module = cli.model
    several = len(module.writer.attempts(module.prompts.hint)) > 1
    if several and any(check.needs_model for check in module.checks):
        raise ConfigError(
            f"the stage {stage.name!r}: trainer.strategy fsdp2 does not write rationales in several attempts "
            "(model.writer.regenerate, model.prompts.hint blind_then_hint) that a model's checks decide on. Use "
            "checks that need no model, or trainer.strategy ddp."
        )


def _require_plain_objective(stage: Stage, cli: StageCLI) -> None:
    """The weights from before are not kept beside shards, and nothing is written while they are trained."""
    objective = cli.model.objective
    if objective is None or not (objective.writes or objective.needs_reference or objective.anchor > 0):
        return
    why = "has the model write while it is trained" if objective.writes else "compares with the weights from before"
    advice = "" if objective.writes or objective.needs_reference else ", or set anchor to 0"
    raise ConfigError(
        f"the stage {stage.name!r}: model.objective {type(objective).__name__} {why}, which trainer.strategy fsdp2 "
        f"does not do; train with trainer.strategy ddp{advice}."
    )
