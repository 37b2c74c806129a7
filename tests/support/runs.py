"""Whole runs for tests: a handful of clips, an experiment file, `rbft fit` in this process or one of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import yaml
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.experiment import lay_over

LEFT, RIGHT = "moves left", "turns around quickly"  # of different length in tokens
CLASSES = (LEFT, RIGHT)
SPLITS = {"train": (3, 3), "val": (1, 1), "test": (3, 2)}  # clips of each class; an odd number of test videos
REPOSITORY = Path(__file__).parents[2]
# `SignalOnce` stands in experiment files of tests
ALLOW = ("--allow-class", "tests.support.runs.SignalOnce")


@dataclass(frozen=True)
class Result:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


def fit(*args: str | Path) -> Result:
    """`rbft fit` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fit", *map(str, args), *ALLOW])
    return Result(code, out.getvalue(), err.getvalue())


def fit_elsewhere(*args: str | Path) -> Result:
    """`rbft fit` by the installed command, in a process of its own; a killed one has the code -9."""
    command = [str(Path(sys.executable).with_name("rbft")), "fit", *map(str, args), *ALLOW]
    # the callbacks that experiment files name stand in this folder
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def write_clips(root: Path, splits: Mapping[str, Sequence[int]] = SPLITS) -> Path:
    """`root/<split>/<class>/<n>.mp4`: eight frames of coarse noise each, every clip another."""
    rng = np.random.default_rng(0)
    for split, counts in splits.items():
        for name, count in zip(CLASSES, counts, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
                write_video(folder / f"{number}.mp4", coarse.repeat(16, axis=1).repeat(16, axis=2), fps=4)
    return root


def write_experiment(path: Path, clips: Path, model: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """An experiment over `clips`: three optimiser steps an epoch, dropout on, two epochs of stage 1."""
    content = {
        "data": {"root": str(clips), "num_frames": 4, "batch_size": 1, "eval_batch_size": 4},
        "trainer": {"accelerator": "cpu", "devices": 1, "accumulate_grad_batches": 2},
        "model": {
            "vlm": str(model),
            "dtype": "float32",
            "tuning": {"class_path": "LoRA", "init_args": {"rank": 4, "alpha": 8, "dropout": 0.1}},
            "optim": {"lr": 1.0e-2},
            "prompts": {
                "label_question": "which: {labels}?",
                "rationale_question": "why: {labels}?",
                "hinted_question": "why {label}?",
                "conclusion": "so {label}",
                "separator": " ",
            },
            "writer": {"max_new_tokens": 6},
        },
        "save_every": 1,
        "save_seconds": 0,
        "stages": {
            "write": {},
            "rationale": {"trainer": {"max_epochs": 2}},
            "classification": {"trainer": {"max_epochs": 1}},
            "joint": {"trainer": {"max_epochs": 1}},
            "test": {},
        },
    }
    path.write_text(yaml.safe_dump(lay_over(content, changes or {}), sort_keys=False))
    return path


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        config: Its experiment file.
        root: Its run root.
        folder: Its run folder.
        result: What the command said.
    """

    config: Path
    root: Path
    folder: Path
    result: Result

    def again(self, *flags: str | Path) -> Result:
        """The same command with more flags."""
        return fit("--config", self.config, "--run_root", self.root, *flags)


def run_experiment(config: Path, root: Path, *flags: str, method: str = "rbft", seed: int = 0) -> Run:
    """Run an experiment in this process, to its end."""
    result = fit("--config", config, "--run_root", root, "--method", method, "--seed_everything", str(seed), *flags)
    assert result.code == 0, result.err
    return Run(config, root, root / config.stem / method / f"seed{seed}", result)


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def digests(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """Hashes of files by path relative to `folder`."""
    files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    assert files, f"nothing in {folder} matches {pattern}"
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class SignalOnce(L.Callback):
    """Sends its process a signal after a batch; not again once `marker` exists, so that the same command goes on.

    Args:
        marker: File that says that the signal was sent.
        number: Of the signal.
        loop: `train`, `predict` or `test`.
        batch: Of this loop, counted from 0 over all epochs.
    """

    def __init__(self, marker: str, number: int, loop: str, batch: int) -> None:
        self.marker, self.number, self.loop, self.batch = Path(marker), number, loop, batch
        self._seen = 0

    def __deepcopy__(self, _: object) -> SignalOnce:
        """Itself: it counts over all trainers of a stage, as of its folds."""
        return self

    def _count(self, loop: str) -> None:
        if loop != self.loop or self.marker.exists():
            return
        if self._seen == self.batch:
            self.marker.touch()
            os.kill(os.getpid(), self.number)
        self._seen += 1

    def on_train_batch_end(self, *args: Any) -> None:
        self._count("train")

    def on_predict_batch_end(self, *args: Any) -> None:
        self._count("predict")

    def on_test_batch_end(self, *args: Any) -> None:
        self._count("test")


def signal_once(folder: Path, number: int, loop: str, batch: int) -> dict[str, Any]:
    """The part of an experiment file that names `SignalOnce`."""
    arguments = {"marker": str(folder / "sent"), "number": int(number), "loop": loop, "batch": batch}
    return {"trainer": {"callbacks": [{"class_path": "tests.support.runs.SignalOnce", "init_args": arguments}]}}
