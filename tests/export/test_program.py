"""The gate on the program of an export: what it says of a program that does something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.models import make_clip

from rbft.errors import ModelError
from rbft.export.program import PROGRAM, check_program, probabilities_of_program

# looks at what a file says it should, and answers
STAND_IN = """
import sys
import numpy
frames = numpy.load(sys.argv[1] + ".npy")
if len(sys.argv) > 2:
    numpy.save(sys.argv[2], FRAMES)
    sys.exit()
print("0.750000 b c")
print("0.250000 a")
"""


@pytest.mark.parametrize(
    ("frames", "chances", "message"),
    [
        ("frames", (0.25, 0.75), ""),
        ("frames ^ 1", (0.25, 0.75), "looks at other pixels of .*0 than the run does"),
        ("frames[:1]", (0.25, 0.75), "looks at other pixels"),
        ("1 / 0", (0.25, 0.75), "fails on .*0: ZeroDivisionError: division by zero"),
        ("frames", (0.3, 0.7), "gives .*0 other probabilities than the run does, by up to 0.05, more than 0.001"),
        ("frames", (float("nan"), 0.7), "gives .*0 other probabilities"),
    ],
)
def test_what_differs_is_named(frames: str, chances: tuple[float, float], message: str, tmp_path: Path) -> None:
    (tmp_path / PROGRAM).write_text(STAND_IN.replace("FRAMES", frames))
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the folder was taken for the library')")
    clips = [replace(make_clip(number), path=str(tmp_path / str(number))) for number in range(3)]
    for clip in clips:
        np.save(f"{clip.path}.npy", clip.frames.numpy())
    expected = torch.tensor([chances] * 3)
    if message:
        with pytest.raises(ModelError, match=f"the export was not made: score_video.py {message}"):
            check_program(tmp_path, clips, expected, ["a", "b c"], 1e-3, 2)
    else:
        assert check_program(tmp_path, clips, expected, ["a", "b c"], 1e-3, 2) == 2


def test_the_probabilities_of_the_program() -> None:
    told = {"labels": [{"prior": 1.0}, {"prior": 0.0}], "calibration_of_program": {"temperature": 2.0}}
    found = probabilities_of_program(torch.tensor([[3.0, 0.0]]), told)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]).softmax(-1))
