"""What an export says of a run: the program's probabilities have a temperature of the program's own answers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from rbft.answering.choice import Choice, Mode
from rbft.evaluation.calibration import Calibration, fit_temperature
from rbft.evaluation.predictions import Prediction
from rbft.export.settings import calibration_of_program

NAMES = ("a", "b")
OF_RUN = Calibration(5.0, None, 6, (2.0, 1.0), (0.5, 0.1))


def recorded(mode: Mode, calibration: Calibration = OF_RUN) -> Any:
    """A run whose answers after a rationale are always sure, and often wrong; its direct ones are neither."""
    rows = []
    for number, (direct, label) in enumerate([(0.7, "a"), (0.6, "a"), (0.8, "a"), (0.6, "b"), (0.3, "b"), (0.9, "a")]):
        answers = {"direct": (direct, 1 - direct), "rationale": (0.999, 0.001)}
        logs = tuple(map(math.log, answers["rationale"]))
        rows.append(Prediction(str(number), "v", label, "a", answers["rationale"], logs, "words", answers, (0.7, 0.3)))
    names = SimpleNamespace(names=NAMES)
    return SimpleNamespace(
        choice=Choice(mode, 1.0, 1.0), calibration=calibration, labels=names, validation=lambda: rows
    )


@pytest.mark.parametrize("mode", ["rationale", "mixture", "gated", "argued"])
def test_the_temperature_is_of_direct_answers(mode: Mode) -> None:
    run = recorded(mode)
    direct = []
    for row in run.validation():
        chances = row.answers["direct"]
        said, logs = NAMES[chances.index(max(chances))], tuple(map(math.log, chances))
        direct.append(Prediction(row.id, "v", row.label, said, chances, logs))
    found = calibration_of_program(run)
    assert found == fit_temperature(direct, NAMES)
    assert found.temperature is not None and found.temperature < 2 < OF_RUN.temperature


def test_a_run_that_answers_directly_or_has_none_keeps_its_own() -> None:
    assert calibration_of_program(recorded("direct")) is OF_RUN
    none = Calibration(absent="the run has no validation videos")
    assert calibration_of_program(recorded("rationale", none)) is none
