"""The kinds of stages: one row each, with what more than one place asks about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

StageKind = Literal[
    "write",
    "rationale",
    "classification",
    "joint",
    "reasoned",
    "preference",
    "self_distil",
    "policy",
    "answer",
    "distil",
    "test",
    "demonstrations",
    "probe",
    "caption_probe",
    "encoder_probe",
    "rationale_probe",
    "combine",
]


@dataclass(frozen=True)
class Kind:
    """What a kind of stage does.

    Args:
        objective: class of the objective that it minimises; None: it trains nothing.
        mode: way of answering that it stands for, where its layer names none; None: that of the experiment.
        tests: whether it leaves predictions of the test videos.
        asks: whether the classes of these are asked of the model itself.
        probes: whether its classifier is fitted beside the model to the labelled videos, and not kept.
        fits_validation: whether that classifier is fitted to the validation videos, too.
        uses_model: whether the model plays a part in it.
        follows_tests: whether it goes over what tests before it left, without any weights.
        rationales: what it does with the rationales of the last write stage before it, as a verb; None: nothing.
    """

    objective: str | None = None
    mode: str | None = None
    tests: bool = False
    asks: bool = False
    probes: bool = False
    fits_validation: bool = False
    uses_model: bool = True
    follows_tests: bool = False
    rationales: str | None = None

    @property
    def takes_weights(self) -> bool:
        """Whether it takes the weights of the last training stage before it.

        An encoder of its own knows nothing of them, and what tests left needs none.
        """
        return self.uses_model and not self.follows_tests

    @property
    def layer(self) -> dict[str, Any]:
        """What a stage of this kind means, below whatever its own layer says."""
        layer: dict[str, Any] = {}
        if self.objective is not None:
            layer["objective"] = {"class_path": self.objective}
        if self.mode is not None:
            layer["answering"] = {"mode": self.mode}
        return {"model": layer} if layer else {}


_OBJECTIVES = "rbft.objectives"

KINDS: Mapping[StageKind, Kind] = {
    "write": Kind(),
    "rationale": Kind(f"{_OBJECTIVES}.rationale.RationaleObjective", rationales="trains on"),
    "classification": Kind(f"{_OBJECTIVES}.classification.ClassificationObjective"),
    "joint": Kind(f"{_OBJECTIVES}.joint.JointObjective", rationales="trains on"),
    "reasoned": Kind(f"{_OBJECTIVES}.reasoned.ReasonedObjective", rationales="trains on"),
    "preference": Kind(f"{_OBJECTIVES}.preference.PreferenceObjective", rationales="trains on"),
    "self_distil": Kind(f"{_OBJECTIVES}.self_distil.SelfDistilObjective"),
    "policy": Kind(f"{_OBJECTIVES}.policy.PolicyObjective"),
    "answer": Kind(mode="rationale"),
    "distil": Kind(f"{_OBJECTIVES}.distil.DistilObjective"),
    "test": Kind(tests=True, asks=True),
    "demonstrations": Kind(tests=True, asks=True, rationales="shows"),
    "probe": Kind(tests=True, probes=True),
    "caption_probe": Kind(tests=True, probes=True, fits_validation=True),
    "encoder_probe": Kind(tests=True, probes=True, fits_validation=True, uses_model=False),
    "rationale_probe": Kind(tests=True, probes=True, follows_tests=True, rationales="is fitted to"),
    "combine": Kind(tests=True, follows_tests=True),
}
TEST_KINDS = tuple(name for name, kind in KINDS.items() if kind.tests)
"""Kinds of stages that leave predictions of the test videos."""
