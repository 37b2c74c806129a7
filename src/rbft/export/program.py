"""The program of an export, run as anybody would run it: what it looks at and what it answers, beside the run's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rbft.errors import ModelError
from rbft.video.clip import Clip

PROGRAM = "score_video.py"
ANSWERED = 2
"""Videos that are answered as well: the program loads the model for each, and computes on the CPU."""
# the program as it is written, once for each video; what it prints is handed on as a list
_DRIVER = """
import contextlib, io, json, runpy, sys
said = []
for args in json.load(sys.stdin):
    print(args[1], file=sys.stderr)
    sys.argv = args
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        runpy.run_path(args[0], run_name="__main__")
    said.append(printed.getvalue())
json.dump(said, sys.stdout)
"""


def check_program(
    folder: Path, clips: Sequence[Clip], expected: Tensor, names: Sequence[str], tolerance: float, answered: int
) -> int:
    """Run the program on videos and compare: every pixel of every frame, and what it says of some of them.

    Args:
        folder: The export.
        clips: As the run reads them, each with the path of its video.
        expected: Probabilities (clips, classes) that the run gives.
        names: names of the classes.
        tolerance: Most that a probability may differ.
        answered: Videos that are answered as well.

    Returns:
        Videos whose answers were compared: none where the machine has too little memory to load the model once more.

    Raises:
        ModelError: The program fails, looks at other pixels, or answers differently; names the video.
    """
    with tempfile.TemporaryDirectory(prefix="rbft-export-") as made:
        program, videos = str(folder.absolute() / PROGRAM), [clip.path for clip in clips]
        files = [str(Path(made) / f"{number}.npy") for number in range(len(clips))]
        looks = [[program, video, file] for video, file in zip(videos, files, strict=True)]
        said = _run([*looks, *([program, video] for video in videos[:answered])], folder)
        if said is None:
            answered, said = 0, _run(looks, folder)
        if said is None:
            raise ModelError(f"the export was not made: {PROGRAM} was killed while it read videos; out of memory?")
        for clip, file in zip(clips, files, strict=True):
            frames = np.load(file, allow_pickle=False)
            if frames.shape != tuple(clip.frames.shape) or not np.array_equal(frames, clip.frames.numpy()):
                raise ModelError(
                    f"the export was not made: {PROGRAM} looks at other pixels of {clip.path} than the run does."
                )
    for video, row, lines in zip(videos, expected.tolist(), said[len(clips) :], strict=False):
        chances = dict(zip(names, row, strict=True))
        off = {name: abs(chances[name] - chance) for name, chance in _read(lines).items()}
        # written so that a difference that is no number fails as well
        if not off or not all(value <= tolerance for value in off.values()):
            raise ModelError(
                f"the export was not made: {PROGRAM} gives {video} other probabilities than the run does, by up to "
                f"{max(off.values(), default=1.0):.3g}, more than {tolerance:g}."
            )
    return answered


def _read(lines: str) -> dict[str, float]:
    return {name: float(chance) for chance, name in (line.split(" ", 1) for line in lines.splitlines())}


def _run(calls: Sequence[Sequence[str]], folder: Path) -> list[str] | None:
    """What the program prints in each call; None where it was killed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _DRIVER],
        input=json.dumps(calls),
        cwd=folder,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        at = [line for line in lines if line in {call[1] for call in calls}]
        raise ModelError(
            f"the export was not made: {PROGRAM} fails on {at[-1] if at else 'its start'}: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    said: list[str] = json.loads(done.stdout)
    return said


def probabilities_of_program(scores: Tensor, description: Mapping[str, Any]) -> Tensor:
    """The probabilities (clips, classes) that belong to scores, as the program makes them of the content of rbft.json.

    Args:
        scores: (clips, classes), each divided by its label's length already.
        description: content of rbft.json.
    """
    prior = scores.new_tensor([label["prior"] for label in description["labels"]])
    return ((scores - prior) / (description["calibration_of_program"]["temperature"] or 1.0)).softmax(-1)
