"""Reasons against using a run, in plain sentences: each says what is wrong and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rbft.evaluation.predictions import Prediction, read_predictions
from rbft.experiment import KINDS
from rbft.runs.run_folder import RunFolder
from rbft.vlm.loading import BUILTIN

_OWN_WORLD = "ShapesWorld"
_MORE = "Give more labelled videos, look at the prompts, or take another model (model.vlm)."


def run_cautions(run: RunFolder) -> list[str]:
    """Reasons against using a finished run.

    Raises:
        RBFTError: A file of the run is damaged.
    """
    asked = run.stages_of(*(name for name, kind in KINDS.items() if kind.uses_model))
    beside = run.stages_of("encoder_probe") and not asked  # the model played no part
    remarks = [] if beside else built_in_cautions(str(run.setting("model.vlm")), run.setting("data.format"))
    for _, record in run.stages_of("write"):
        remarks += rationale_cautions(record.summary)
    if run.predictions.is_file():
        remarks += answer_cautions(read_predictions(run.predictions))
    return list(dict.fromkeys(remarks))


def built_in_cautions(vlm: str, format: object) -> list[str]:
    """A caution where the built-in model meets videos that it was not made for.

    Args:
        vlm: name of the model.
        format: format of the data set, as an experiment file states it; the built-in model knows its own world.
    """
    name = format.get("class_path") if isinstance(format, Mapping) else format
    if vlm not in BUILTIN or str(name).rpartition(".")[2] == _OWN_WORLD:
        return []
    return [
        "the built-in model knows nothing but its own moving shapes: of other videos its answers and rationales mean "
        "little. Use it to try the steps, and set model.vlm to a vision-language model for a classifier."
    ]


def rationale_cautions(summary: Mapping[str, Any]) -> list[str]:
    """A caution where no rationale of a write stage names a class.

    Args:
        summary: summary in the stage's record.
    """
    labelled, kept = summary.get("labelled_rationales", 0), summary.get("kept", 0)
    if not labelled or not kept or summary.get("state_a_class", 0):
        return []
    return [
        f"none of the {labelled} rationales names a class, and {kept} are trained on all the same: the model does not "
        "know what these videos show, or the prompt does not ask it to conclude with a class. Read some of them; then "
        "compare with --method sft, change model.prompts.rationale_question, or set model.keep to Filter, which stops "
        "where nothing is worth keeping."
    ]


def answer_cautions(predictions: Sequence[Prediction]) -> list[str]:
    """A caution where the test's answers are no better than a single fixed answer.

    Args:
        predictions: predictions of the test; with videos of one class only there is no caution.
    """
    classes = Counter(prediction.label for prediction in predictions)
    if len(classes) < 2:
        return []
    answers = {prediction.predicted for prediction in predictions} - {None}
    if len(answers) == 1:
        return [
            f"every test video was answered {answers.pop()!r}: this run does not distinguish its classes, and its "
            f"answers are useless. {_MORE}"
        ]
    right = sum(prediction.predicted == prediction.label for prediction in predictions)
    commonest, videos = classes.most_common(1)[0]
    if right > videos:
        return []
    total = len(predictions)
    return [
        f"{right / total:.1%} of the test videos were answered rightly, and always answering {commonest!r} would be "
        f"right for {videos / total:.1%}: this run is no better than that. {_MORE}"
    ]
