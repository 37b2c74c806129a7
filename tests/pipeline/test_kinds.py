"""A kind of stage is whole: its row, what runs it, and the objective that its row names."""

from __future__ import annotations

import importlib
from typing import get_args

import pytest

from rbft.experiment import KINDS, StageKind
from rbft.objectives.base import Objective
from rbft.pipeline.run import _RUNS
from rbft.stages.train import train


def test_every_kind_has_a_row_and_something_that_runs_it():
    assert list(KINDS) == list(get_args(StageKind))
    assert set(_RUNS) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_what_trains_has_an_objective_that_is_there(name):
    path = KINDS[name].objective
    assert (_RUNS[name] is train) == (path is not None)
    if path is not None:
        module, _, objective = path.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), objective), Objective)
