"""What a run leaves at its start, so that it can be repeated: its one merged experiment, and its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import Namespace

from rbft.experiment import Experiment
from rbft.experiment.layers import without
from rbft.files import archive, write_atomic, write_json
from rbft.pipeline.stage_cli import StageCLI
from rbft.runs.environment import describe_environment
from rbft.runs.names import ENVIRONMENT, EXPERIMENT, LABELS, PUBLISHED, SPLITS
from rbft.stages.read_stage import ReadStage

_SHAPED = ("model", "data", "trainer")


def write_run_files(experiment: Experiment, prepared: Sequence[ReadStage]) -> None:
    """experiment.yaml, environment.json, the split and the classes.

    Figures of an earlier run in the same folder would pass for this one's until it ends; they are archived.

    Args:
        experiment: experiment that is run.
        prepared: its stages.
    """
    root = experiment.run_dir
    for name in PUBLISHED:
        archive(root / name)
    content = merged_experiment(experiment, {entry.stage.name: entry.config for entry in prepared})
    write_atomic(root / EXPERIMENT, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    data = prepared[0].datamodule
    write_json(
        root / ENVIRONMENT,
        describe_environment() | {"data_fingerprint": data.fingerprint("train", "val", "test")},
    )
    write_json(root / SPLITS, data.splits.to_json())
    write_json(root / LABELS, list(data.labels.names))


def merged_experiment(experiment: Experiment, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The one experiment that all files, layers and flags make: run again, every stage has the very same settings.

    A flag beats the layer of every stage, so a layer is written as what its stage has beyond the experiment's own keys.

    Args:
        experiment: experiment that is run.
        configs: Resolved configuration of each of its stages, by name.
    """
    files = [part for file in experiment.files for part in ("--config", file)]
    bare = StageCLI([*files, *experiment.flags])
    content = bare.resolved()
    layers = dict(experiment.layers)
    for name, layer in experiment.layers.items():
        own = {key: value for key, value in (layer or {}).items() if key not in _SHAPED}
        if name in configs:
            own |= _beyond(content, configs[name], bare.config, _SHAPED)
        else:
            # a stage of another method: the keys that flags override are left to them
            own |= _without_flags({key: layer[key] for key in _SHAPED if key in (layer or {})}, experiment.flags)
        layers[name] = own
    # named as it is here, whatever the file is called: run again, it finds this folder
    named = {"experiment": experiment.name, "variant": experiment.variant, "method": experiment.method}
    return content | named | {"stages": layers, "methods": dict(experiment.methods)}


def _beyond(
    base: Mapping[str, Any], stage: Mapping[str, Any], parsed: Namespace, keys: Sequence[str] | None = None
) -> dict[str, Any]:
    """What a stage's configuration says beyond the experiment's.

    Args:
        base: The experiment's, as plain values.
        stage: The stage's, as plain values.
        parsed: The experiment's as parsed: where it has a namespace, keys are merged; all else is replaced whole.
        keys: The keys to look at; all by default.
    """
    beyond: dict[str, Any] = {}
    for key in stage if keys is None else keys:
        before, now, node = base.get(key), stage[key], parsed.get(key)
        if now == before:
            continue
        if (
            isinstance(node, Namespace)
            and isinstance(before, Mapping)
            and isinstance(now, Mapping)
            and before.get("class_path") == now.get("class_path")
        ):
            inner = _beyond(before, now, node)
            if "class_path" in now:
                inner = {"class_path": now["class_path"], **inner}
            beyond[key] = inner
        else:
            beyond[key] = now
    return beyond


def _without_flags(layer: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """A layer without the keys that flags say."""
    left = layer
    for flag in flags:
        if flag.startswith("--"):
            left = without(left, flag.removeprefix("--").partition("=")[0].split("."))
    return left
