"""Fabricated folders of finished runs: the files that a report reads, with figures that are known, and no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.experiment import METHODS, lay_over
from rbft.files import write_json, write_jsonl
from rbft.rationales.store import Rationale
from rbft.runs.stage_record import StageRecord, write_record

CLASSES = ("lift", "push & pull", "turn")
VIDEOS = 24
KINDS = {"zero_shot": "test"}


def predictions(
    right: int, seed: int = 0, classes: Sequence[str] = CLASSES, rationale: str | None = None
) -> list[Prediction]:
    """Of `VIDEOS` test videos the first ones right, the others called the next class, all more or less surely."""
    rng, found = np.random.default_rng(seed), []
    for number in range(VIDEOS):
        place = number % len(classes)
        said = place if number < right else (place + 1) % len(classes)
        chances = rng.dirichlet(np.ones(len(classes)))
        chances[[said, int(chances.argmax())]] = chances[[int(chances.argmax()), said]]
        text = None if rationale is None else f"{rationale} {number}"
        row = tuple(float(chance) for chance in chances)
        name = classes[place]
        found.append(
            Prediction(
                f"{name}/{number}",
                f"test/{number}.mp4",
                name,
                classes[said],
                row,
                tuple(float(value) for value in np.log(chances)),
                text,
            )
        )
    return found


def figures(found: Sequence[Prediction], classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """A metrics.json with the accuracy of the predictions; the other figures are made up."""
    accuracy = sum(row.predicted == row.label for row in found) / len(found)
    return {
        "test/accuracy": accuracy,
        "test/balanced_accuracy": accuracy,
        "test/macro_f1": accuracy - 0.01,
        "test/top5_accuracy": 1.0,
        "test/ece": 0.125,
        "test/auroc": None,
        "test/accuracy_ci95": [0.1, 0.9],
        "test/num_videos": len(found),
        "test/num_unreadable": 0,
        "chance/accuracy": 1 / len(classes),
        "majority/accuracy": 1 / len(classes),
    }


def write_run(
    root: Path,
    method: str,
    right: int,
    shots: int | None = 4,
    seed: int = 0,
    *,
    experiment: str = "tiny",
    data: str = "nowhere",
    classes: Sequence[str] = CLASSES,
    stages: Sequence[str] | None = None,
    words: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run.

    Args:
        root: The run root.
        method: Its method.
        right: Test videos that are right.
        shots: Labelled videos a class.
        seed: Its seed.
        experiment: Its experiment.
        data: Its data root.
        classes: Its classes.
        stages: Of its method, where it is no built-in one.
        words: Begin its rationales of test videos; None: it writes none.
        changes: Laid over its experiment.yaml.
    """
    variant = f"{method}-shots{shots}"
    folder = root / experiment / variant / f"seed{seed}"
    names = tuple(stages or METHODS[method])
    content = {
        "experiment": experiment,
        "method": method,
        "variant": variant,
        "seed_everything": seed,
        "methods": {method: list(names)},
        "model": {"vlm": "builtin/tiny", "optim": {"lr": 0.001}},
        "data": {"root": data, "shots": shots, "draw": 0, "num_frames": 4},
        "trainer": {"max_epochs": None},
        "stages": {name: {} for name in names},
    }
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(lay_over(content, changes or {})))
    write_json(folder / "labels.json", list(classes))
    found = predictions(right, seed, classes, words)
    for name in names:
        kind = KINDS.get(name, name)
        summary: dict[str, Any] = {}
        if kind in ("rationale", "classification", "joint"):
            summary = {"steps": 10, "supervised_tokens": 120, "gpu_memory_bytes": 2**30}
        elif kind == "write":
            write_jsonl(folder / name / "rationales.jsonl", [dataclasses.asdict(row) for row in rationales(classes)])
        elif name != names[-1]:
            write_predictions(
                folder / name / "predictions.jsonl",
                predictions(right // 2, seed, classes, None if words is None else "early"),
            )
        write_record(folder / name, StageRecord(name, kind, "0", {}, {}, 60.0, summary))
    write_json(folder / "metrics.json", figures(found, classes))
    write_predictions(folder / "predictions.jsonl", found)
    return folder


def rationales(classes: Sequence[str] = CLASSES, right: int = 3) -> list[Rationale]:
    """Four rationales, of which `right` state their class; the last is dropped."""
    found = []
    for number in range(4):
        label = classes[number % len(classes)]
        stated = label if number < right else None
        found.append(
            Rationale(
                f"t{number}",
                0,
                f"train/{number}.mp4",
                label,
                "00",
                "blind",
                "me",
                f"it moves {number}",
                stated,
                f"it moves {number}",
                False,
                {"grounding": number / 4},
                1.0,
                number < 3,
                "" if number < 3 else "grounding 0.75",
            )
        )
    return found


RIGHT = {
    "zero_shot": {8: (9,)},
    "sft": {4: (12, 13, 11), 8: (16, 18, 17)},
    "rbft": {4: (16, 18, 16), 8: (20, 21, 20)},
    "probe": {4: (10, 11, 9), 8: (12, 13, 14)},
}
"""Right test videos of `write_grid`, by method, shots and seed."""


def write_grid(root: Path, data: str = "nowhere") -> Path:
    """Runs of four methods with two numbers of shots and three seeds; the untouched model once."""
    for method, by_shots in RIGHT.items():
        for shots, counts in by_shots.items():
            for seed, right in enumerate(counts):
                stages = ("zero_shot", "write", "rationale", "classification", "test") if method == "rbft" else None
                write_run(
                    root,
                    method,
                    right,
                    shots,
                    seed,
                    data=data,
                    stages=stages,
                    words="it goes up" if method == "rbft" else None,
                )
    return root


def write_planned(root: Path) -> Path:
    """The folder of a sweep over `sft` and `rbft` with two seeds, of which the last run has not begun."""
    planned = {}
    for method in ("sft", "rbft"):
        for seed in (0, 1):
            folder = root / "runs" / "tiny" / f"{method}-shots4" / f"seed{seed}"
            point = {"method": method, "seed_everything": seed}
            planned[f"{method}-{seed}"] = {"point": point, "folder": str(folder)}
            if (method, seed) != ("rbft", 1):
                write_run(root / "runs", method, 12 + seed, seed=seed)
    write_json(root / "runs" / "sweeps" / "grid" / "plan.json", {"where": str(root), "runs": planned})
    return root / "runs" / "sweeps" / "grid"
