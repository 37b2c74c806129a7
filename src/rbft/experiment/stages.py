"""Stages as configuration layers, and the methods that list them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from rbft.errors import ConfigError
from rbft.experiment.kinds import KINDS, StageKind
from rbft.experiment.layers import lay_over

METHODS: dict[str, tuple[str, ...]] = {
    "zero_shot": ("test",),
    "sft": ("classification", "test"),
    "rationale_only": ("write", "rationale", "test"),
    "rbft": ("write", "rationale", "classification", "test"),
    "joint": ("write", "joint", "test"),
    "reasoned": ("write", "rationale", "rewrite", "reasoned", "test"),
    "preference": ("write", "rationale", "explore", "preference", "test"),
    "self_distil": ("self_distil", "test"),
    "policy": ("write", "rationale", "policy", "test"),
    "distil": ("write", "rationale", "answer", "distil", "test"),
    "probe": ("probe",),
    "caption_probe": ("caption_probe",),
    "encoder_probe": ("encoder_probe",),
    "demonstrations": ("write", "demonstrations"),
}
# Stages that methods above name otherwise than by their kind, where a file does not say what they are.
_NAMED_LAYERS: dict[str, dict[str, Any]] = {
    "rewrite": {
        "kind": "write",
        "model": {"prompts": {"hint": "blind"}, "writer": {"samples": 4, "temperature": 0.7}},
    },
    "explore": {
        "kind": "write",
        "model": {"prompts": {"hint": "blind"}, "writer": {"samples": 8, "temperature": 1.0}},
    },
}
_CONTROLS = ("demonstrations", "combine", *(name for name, kind in KINDS.items() if kind.probes))
_LAYER_KEYS = ("kind", "start", "rationale_epochs", "views", "probe_weight", "pool", "model", "data", "trainer")
_STARTS = ("previous", "base")
Pool = Literal["linear", "logarithmic"]


@dataclass(frozen=True)
class Stage:
    """One stage of a method.

    Args:
        name: name of the stage and of its folder.
        kind: kind of the stage.
        layer: The configuration it lays over the experiment file.
        weights_from: The stage whose weights it starts from; None for the base model.
        rationales_from: The stage whose rationales it trains on or is measured against; None where it needs none.
        rationale_epochs: for a classification stage: it also trains for as many epochs as supervise as many tokens as
            this number of epochs over the rationales would.
        answers_from: The stage whose soft labels it learns; None where it needs none.
        views: for an answer stage: clips of each video that are answered, the first as a test takes its frames, the
            others with frames drawn at random in each segment.
        predictions_from: for a combine stage: the test and the probe whose answers it mixes; for a rationale probe: the
            test whose texts it classifies.
        probe_weight: for a combine stage: weight of the probe's probabilities; None: chosen on labelled videos.
        pool: for a combine stage: whether probabilities or their logarithms are averaged.
    """

    name: str
    kind: StageKind
    layer: Mapping[str, Any]
    weights_from: str | None
    rationales_from: str | None
    rationale_epochs: int = 0
    answers_from: str | None = None
    views: int = 1
    predictions_from: tuple[str, ...] = ()
    probe_weight: float | None = None
    pool: Pool = "linear"

    @property
    def trains(self) -> bool:
        """Whether it leaves weights behind."""
        return KINDS[self.kind].objective is not None

    @property
    def tests(self) -> bool:
        """Whether it leaves predictions of the test videos."""
        return KINDS[self.kind].tests

    @property
    def asks(self) -> bool:
        """Whether it leaves predictions of the test videos whose classes the model itself is asked for."""
        return KINDS[self.kind].asks

    @property
    def uses_model(self) -> bool:
        """Whether the model plays a part in it."""
        return KINDS[self.kind].uses_model


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the most similar known word, or lists the known ones."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."


def check_folder_name(what: str, value: str) -> None:
    """Refuse a name that would not be a folder of its own."""
    if value in ("", ".", "..") or "/" in value or "\\" in value or "\0" in value:
        raise ConfigError(f"{what}: {value!r} becomes a folder name and may not be a path.")
    try:
        value.encode()
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what}: {value!r} becomes a folder name, and this system's encoding has no such letters. Set the "
            "environment variable PYTHONUTF8=1, or a UTF-8 locale."
        ) from error


def stages_of_method(where: str, methods: Mapping[str, Any], method: str) -> list[str]:
    """The stage names of a method."""
    if method not in methods:
        raise ConfigError(f"method {method!r} is unknown; {nearest(method, methods)}")
    names = methods[method]
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: methods.{method} must be a list of stage names, found {names!r}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: methods.{method} lists a stage twice; a stage has one folder and runs once.")
    for name in names:
        check_folder_name(f"{where}: methods.{method}", name)
    return list(names)


def _kind(where: str, name: str, layer: Mapping[str, Any]) -> StageKind:
    """What kind a stage is of: what its layer says, or its name."""
    kind = layer.get("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(
            f"{where}: stages.{name}: of which kind is it? Set stages.{name}.kind to one of {', '.join(KINDS)}."
            if "kind" not in layer
            else f"{where}: stages.{name}.kind: {kind!r} is unknown; {nearest(str(kind), KINDS)}"
        )
    return cast(StageKind, kind)


def _tested_before(where: str, name: str, kind: StageKind, before: Sequence[Stage]) -> tuple[str, ...]:
    """The tests before a stage that goes over what they left: the last one, and for a mixture the last probe."""
    if not KINDS[kind].follows_tests:
        return ()
    does = "classifies the texts that a test has written"
    wanted = {"test": [stage.name for stage in before if stage.asks]}
    if kind == "combine":
        does = "mixes the answers of a test and of a probe"
        wanted["caption_probe"] = [stage.name for stage in before if KINDS[stage.kind].probes]
    for what, names in wanted.items():
        if not names:
            raise ConfigError(f"{where}: the stage {name!r} {does}; put a stage of kind {what!r} before it.")
    return tuple(names[-1] for names in wanted.values())


def _pool(where: str, name: str, kind: str, layer: Mapping[str, Any]) -> Pool:
    """Which means of the probabilities a mixture takes."""
    pool = layer.get("pool", "linear")
    if "pool" in layer and kind != "combine":
        raise ConfigError(f"{where}: stages.{name}.pool: only stages of kind 'combine' have it.")
    if pool not in get_args(Pool):
        raise ConfigError(
            f"{where}: stages.{name}.pool: {pool!r} is unknown; it is 'linear' (probabilities are averaged) or "
            "'logarithmic' (their logarithms are)."
        )
    return cast(Pool, pool)


def _probe_weight(where: str, name: str, kind: str, layer: Mapping[str, Any]) -> float | None:
    """The weight of a probe's answers in a mixture; None where labelled videos decide."""
    weight = layer.get("probe_weight")
    wrong = isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1
    if "probe_weight" in layer and kind != "combine":
        raise ConfigError(f"{where}: stages.{name}.probe_weight: only stages of kind 'combine' have it.")
    if weight is not None and wrong:
        raise ConfigError(
            f"{where}: stages.{name}.probe_weight: {weight!r} must be a number in [0, 1], or null: chosen on labelled "
            "videos."
        )
    return None if weight is None else float(weight)


def make_stages(where: str, names: Sequence[str], layers: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a method with what each takes from those before it."""
    stages: list[Stage] = []
    weights: str | None = None
    rationales: str | None = None
    answers: str | None = None
    for name in names:
        # a control needs no settings of its own, so that any experiment can be compared with it
        if name not in layers and name not in (*_CONTROLS, *_NAMED_LAYERS):
            add = f" Or add the line `{name}: {{}}` there." if name in KINDS else ""
            raise ConfigError(
                f"{where}: the method lists the stage {name!r}, which `stages:` does not have; "
                f"{nearest(name, layers)}{add}"
            )
        layer = (layers[name] if name in layers else _NAMED_LAYERS.get(name)) or {}
        if not isinstance(layer, Mapping):
            raise ConfigError(f"{where}: stages.{name} must hold keys and values, found {type(layer).__name__}.")
        if unknown := sorted(str(key) for key in layer if key not in _LAYER_KEYS):
            raise ConfigError(f"{where}: unknown key stages.{name}.{unknown[0]}; {nearest(unknown[0], _LAYER_KEYS)}")
        kind = _kind(where, name, layer)
        begin = layer.get("start", "previous")
        if begin not in _STARTS:
            raise ConfigError(
                f"{where}: stages.{name}.start: {begin!r} is unknown; it is 'previous' (the weights of "
                "the last training stage before it) or 'base' (the base model's)."
            )
        match = layer.get("rationale_epochs", 0)
        if isinstance(match, bool) or not isinstance(match, int) or match < 0 or (match and kind != "classification"):
            raise ConfigError(
                f"{where}: stages.{name}.rationale_epochs: {match!r} must be a whole number of epochs; "
                "only stages of kind 'classification' have it."
            )
        verb = "is measured against" if match else KINDS[kind].rationales
        if verb and rationales is None:
            raise ConfigError(
                f"{where}: the stage {name!r} {verb} rationales, but no stage before it writes any; "
                "put a stage of kind 'write' before it."
            )
        views = layer.get("views", 1)
        if isinstance(views, bool) or not isinstance(views, int) or views < 1 or (views > 1 and kind != "answer"):
            raise ConfigError(
                f"{where}: stages.{name}.views: {views!r} must be a whole number of clips of each video; "
                "only stages of kind 'answer' have it."
            )
        if kind == "distil" and answers is None:
            raise ConfigError(
                f"{where}: the stage {name!r} learns soft labels, but no stage before it gives any; "
                "put a stage of kind 'answer' before it."
            )
        tested = _tested_before(where, name, kind, stages)
        weight, pool = _probe_weight(where, name, kind, layer), _pool(where, name, kind, layer)
        own = {key: value for key, value in layer.items() if key in ("model", "data", "trainer")}
        content = lay_over(KINDS[kind].layer, own)
        start = weights if begin == "previous" and KINDS[kind].takes_weights else None
        taught_by = answers if kind == "distil" else None
        learnt = rationales if verb else None
        stages.append(Stage(name, kind, content, start, learnt, match, taught_by, views, tested, weight, pool))
        if stages[-1].trains:
            weights = name
        elif kind == "write":
            rationales = name
        elif kind == "answer":
            answers = name
    return tuple(stages)
