"""The reliability diagram shows every side that there is, with its error, whatever bins are empty."""

from __future__ import annotations

import pytest

from rbft.evaluation.calibration import Bin
from rbft.evaluation.figures import as_png, reliability_figure

HALF = [Bin(0.0, 0.5, 0, None, None), Bin(0.5, 1.0, 8, 0.9, 0.5)]


def test_sides_stand_beside_each_other_with_their_errors() -> None:
    figure = reliability_figure({"as scored": HALF, "calibrated": [HALF[0], Bin(0.5, 1.0, 8, 0.55, 0.5)]}, "test $x$")
    first, second = figure.axes
    assert "as scored" in first.get_title() and "ECE 40.0%" in first.get_title() and "8 videos" in first.get_title()
    assert "ECE 5.0%" in second.get_title()
    (bar,) = first.patches
    assert (bar.get_x(), bar.get_width(), bar.get_height()) == pytest.approx((0.5, 0.5, 0.5))
    assert as_png(figure)[:4] == b"\x89PNG"


def test_nothing_to_show_is_an_empty_diagram() -> None:
    (axes,) = reliability_figure({"as scored": [HALF[0]]}, "test").axes
    assert not axes.patches and "0 videos" in axes.get_title()
