"""Every stage once on a small model in half precision: what a GPU refuses shows here, before anything is measured."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row
from benchmarks.models import build
from tests.support.runs import write_clips, write_experiment

from rbft.__main__ import main

_ACCELERATOR = {"cuda": "gpu", "cpu": "cpu"}
_WHOLE = {"class_path": "FullFineTuning", "init_args": {"projector": "train", "vision": "train"}}
_SAMPLED = {"writer": {"temperature": 1.0, "samples": 2}}
# What changes of the experiment, and the method; the most likely to find something first.
CASES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "all stages, adapters, deterministic": ("rbft", {"trainer": {"deterministic": True}, "model": _SAMPLED}),
    "whole model": ("sft", {"model": {"tuning": _WHOLE}}),
    "whole model, checkpointing": ("sft", {"model": {"tuning": _WHOLE, "activation_checkpointing": True}}),
    "float16 with a scaler": ("sft", {"model": {"dtype": "float16"}, "trainer": {"precision": "16-mixed"}}),
    "data workers, random frames": ("sft", {"data": {"num_workers": 2, "frames": "random"}}),
    "answers after its own rationale": ("sft", {"model": {"answering": {"mode": "mixture", "max_new_tokens": 4}}}),
    "joint": ("joint", {"model": _SAMPLED}),
    "eager attention": ("sft", {"model": {"attn_implementation": "eager"}}),
}


def smoke(device: str, seconds: float, folder: Path) -> Iterator[Row]:
    """Runs the cases one after another, and predicts and exports with the first.

    Args:
        device: `cuda` or `cpu`.
        seconds: None is begun later than so many after the start.
        folder: For clips, models and runs.

    Yields:
        A row for each: whether it ran, how long it took, and the last line of what it said where it did not.
    """
    end = time.perf_counter() + seconds
    clips, model = write_clips(folder / "clips"), build("qwen2_5_vl", "tiny", folder)
    first = folder / "runs" / "case0" / "rbft" / "seed0"
    commands: dict[str, Callable[[], list[str]]] = {
        name: lambda number=number, method=method, changes=changes: [  # type: ignore[misc]
            *("fit", "--run_root", str(folder / "runs"), "--method", method, "--config"),
            str(_write(folder / f"case{number}.yaml", clips, model, device, changes)),
        ]
        for number, (name, (method, changes)) in enumerate(CASES.items())
    }
    place = ["--trainer.accelerator", _ACCELERATOR[device]]
    answers, export = str(folder / "answers.csv"), str(folder / "export")
    commands["predict"] = lambda: ["predict", "--run", str(first), "--to", answers, str(clips / "test"), *place]
    commands["export"] = lambda: ["export", "--run", str(first), "--to", export, "--form", "merged"]
    for name, command in commands.items():
        row: Row = {"case": f"smoke: {name}", "family": "qwen2_5_vl", "device": device}
        if time.perf_counter() > end:
            yield row | {"available": False, "reason": "no time was left"}
            continue
        start = time.perf_counter()
        reason = _run(command())
        row |= {"available": reason is None, "seconds": round(time.perf_counter() - start, 1)}
        yield row if reason is None else row | {"reason": reason}


def _write(path: Path, clips: Path, model: Path, device: str, changes: Mapping[str, Any]) -> Path:
    half = {"model": {"dtype": "bfloat16", **changes.get("model", {})}}
    trainer = {"trainer": {"accelerator": _ACCELERATOR[device], **changes.get("trainer", {})}}
    return write_experiment(path, clips, model, {**changes, **half, **trainer})


def _run(command: list[str]) -> str | None:
    """None if a command of `rbft` did what it was asked to; else the last thing it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(command)
    except Exception as error:  # whatever a device can raise is what is looked for
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return None if code == 0 else said.getvalue().strip().splitlines()[-1]
