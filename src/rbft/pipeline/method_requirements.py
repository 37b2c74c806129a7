"""What the stages of a method must be for one another; refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rbft.errors import ConfigError

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage


def require_method(stages: Sequence[ReadStage]) -> None:
    """Refuse stages that do not go with those before them.

    Raises:
        ConfigError: Names the stages and the keys.
    """
    for entry in stages:
        _require_order(entry)
        _require_selection(entry)
        _require_answers(entry)
        _require_blind(entry)
        _require_epochs(entry)
        _require_unseen(entry)
        _require_labelled(entry)
        _require_texts(entry)


def _require_order(entry: ReadStage) -> None:
    """Refuse a stage that reads or scores texts in another order than the weights it starts from were taught.

    A model that learned to state the class before its reasons has decided before it writes: it never learned to answer
    after its own words.

    Raises:
        ConfigError: Names the stage and the key.
    """
    taught = {
        before.module.prompts.target_order for before in entry.trained_by if before.stage.kind in ("rationale", "joint")
    }
    if "label_then_rationale" not in taught:
        return
    kind, name, answering = entry.stage.kind, entry.stage.name, entry.module.answering
    if kind in ("reasoned", "preference"):
        raise ConfigError(
            f"the stage {name!r} teaches the class after rationales, and under model.prompts.target_order "
            "label_then_rationale the class comes first. Set target_order to rationale_then_label."
        )
    if (entry.stage.asks or kind == "answer") and answering.writes:
        raise ConfigError(
            f"the stage {name!r}: model.answering.mode {answering.mode} answers after its "
            "own rationale, and under model.prompts.target_order label_then_rationale the class comes first. Set "
            "model.answering.mode to direct, or target_order to rationale_then_label."
        )
    if kind == "write" and entry.module.prompts.target_order != "label_then_rationale":
        raise ConfigError(
            f"the stage {name!r} reads texts of a model that was taught to state the class first, and would "
            "find them empty; set model.prompts.target_order to label_then_rationale for it too."
        )


def _require_selection(entry: ReadStage) -> None:
    """Refuse to choose among epochs by answers after an own rationale where there can be none.

    Raises:
        ConfigError: Names the stage and the key.
    """
    if not entry.stage.trains or not entry.module.chooses_after_rationales:
        return
    prompts = entry.module.prompts
    why = ""
    if entry.sharded:
        why = "trainer.strategy fsdp2 writes none while it trains"
    elif prompts.target_order == "label_then_rationale":
        why = "under model.prompts.target_order label_then_rationale the class stands before them"
    elif prompts.rationale_question == prompts.label_question:
        why = "model.prompts.rationale_question is the label question"
    if why:
        raise ConfigError(
            f"the stage {entry.stage.name!r}: model.selection.weights best chooses the epoch that is right most often "
            f"after its own rationales, and {why}. Set model.selection.weights to last for it."
        )


def _require_answers(entry: ReadStage) -> None:
    """Refuse to take soft labels from another way of answering than after own rationales.

    Raises:
        ConfigError: Names the stage and the key.
    """
    if entry.stage.kind != "answer":
        return
    name, answering = entry.stage.name, entry.module.answering
    if answering.mode != "rationale":
        raise ConfigError(
            f"the stage {name!r}: model.answering.mode {answering.mode} gives no soft labels to distil; set "
            "it to rationale."
        )
    if answering.strength is None:
        raise ConfigError(
            f"the stage {name!r}: model.answering.strength null is chosen in a test; state a number here."
        )
    if answering.choose_on != "validation":
        raise ConfigError(
            f"the stage {name!r}: model.answering.choose_on {answering.choose_on} is for a test; here "
            "nothing is chosen. Leave it out."
        )


def _require_blind(entry: ReadStage) -> None:
    """Refuse to learn the class after texts that were written with it, as no test will have them.

    Raises:
        ConfigError: Names the stage that writes and the key.
    """
    source = entry.stage.rationales_from
    if entry.stage.kind not in ("reasoned", "preference") or source is None:
        return
    model, learner = entry.before[source].module, entry.module.objective
    attempts = model.writer.attempts(model.prompts.hint)
    if learner is not None and learner.contrasts:
        if not attempts[0].hinted or not model.writer.contrast:
            raise ConfigError(
                f"the stage {entry.stage.name!r} prefers rationales hinted to the right class to such of another "
                f"class, and {source!r} does not write both. Set model.writer.contrast to true and "
                f"model.prompts.hint to hint_stripped in the layer of {source!r}."
            )
    elif any(attempt.hinted for attempt in attempts):
        raise ConfigError(
            f"the stage {entry.stage.name!r} learns from rationales as a test has them, and those of "
            f"{source!r} are written with the class. Set model.prompts.hint to blind in the layer of {source!r}."
        )


def _require_epochs(entry: ReadStage) -> None:
    """Refuse to match the tokens of rationales where something else than epochs ends the training.

    Raises:
        ConfigError: Names the stage and the key.
    """
    if entry.stage.rationale_epochs and entry.config["trainer"]["max_steps"] > 0:
        raise ConfigError(
            f"the stage {entry.stage.name!r}: trainer.max_steps would end it before it has seen the tokens "
            "that rationale_epochs asks for; set trainer.max_epochs instead."
        )


def _require_unseen(entry: ReadStage) -> None:
    """Refuse to cross-fit stages whose inputs have seen the labels of the fold that is held back.

    Raises:
        ConfigError: Names the stages and what to change.
    """
    if not entry.crossfits:
        return
    for trained in reversed(entry.trained_by):
        source = trained.stage.rationales_from
        why = ""
        if trained.stage.answers_from is not None:
            why = f"learns answers of {trained.stage.answers_from!r}, which was made by weights that saw all labels"
        elif source is not None and trained.before[source].stage.weights_from is not None:
            why = f"learns rationales that {source!r} wrote with weights that saw all labels"
        elif trained.module.selection.weights == "best":
            why = "keeps the epoch that validates best (model.selection), and no video validates"
        if why:
            raise ConfigError(
                f"the stage {entry.stage.name!r}: model.answering: crossfit trains {trained.stage.name!r} again "
                f"without a part of the labelled videos, and that stage {why}. Choose another method, or choose "
                "on validation videos (mode or choose_on validation)."
            )


def _require_labelled(entry: ReadStage) -> None:
    """Refuse to choose the weight of a mixture where no labelled video is answered for it.

    Raises:
        ConfigError: Names the stages and the keys.
    """
    if entry.stage.kind != "combine" or entry.stage.probe_weight is not None:
        return
    test, probe = entry.stage.predictions_from
    answering, val = entry.before[test].module.answering, entry.before[test].datamodule.splits.val
    if not answering.crossfits and not (val and (answering.calibrate or answering.needs_validation)):
        raise ConfigError(
            f"the stage {entry.stage.name!r} chooses the weight of {probe!r} on labelled videos, and {test!r} answers "
            f"none. Set model.answering.choose_on to crossfit in the layer of {test!r}, or state "
            f"stages.{entry.stage.name}.probe_weight."
        )


def _require_texts(entry: ReadStage) -> None:
    """Refuse to classify the texts of a test that does not write one about each video.

    Raises:
        ConfigError: Names the stages and the keys.
    """
    if entry.stage.kind != "rationale_probe":
        return
    written = entry.stage.predictions_from[0]
    answering = entry.before[written].module.answering
    if answering.mode in ("direct", "gated", "argued") or answering.samples > 1:
        raise ConfigError(
            f"the stage {entry.stage.name!r} classifies the text that {written!r} writes about each test video, and "
            f"under model.answering.mode {answering.mode} with samples {answering.samples} there is not one for "
            f"each. Set mode to rationale and samples to 1 in the layer of {written!r}."
        )
