"""The picture of a confusion matrix shows shares as colour and counts as text, whatever the classes are called."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rbft.evaluation.confusion import confusion_picture

INK, PAPER = (0x1F, 0x29, 0x33), (255, 255, 255)


def matrix_of(picture: Image.Image) -> NDArray[np.uint8]:
    """What stands inside the frame, whose lines are the longest."""
    pixels: NDArray[np.uint8] = np.asarray(picture)
    ink = (pixels == INK).all(2)
    (top, bottom), (left, right) = (
        np.flatnonzero(along >= along.max() - 1).tolist() for along in (ink.sum(1), ink.sum(0))
    )
    return pixels[top + 1 : bottom, left + 1 : right]


def blue(share: float) -> tuple[int, ...]:
    return tuple(int(part) for part in mpl.colormaps["Blues"](share, bytes=True)[:3])


def cells_of(picture: Image.Image, classes: int) -> list[list[NDArray[np.uint8]]]:
    rows = np.split(matrix_of(picture), classes)
    return [np.split(row, classes, axis=1) for row in rows]


def cell(share: float, text: str, size: tuple[int, int], ink: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A cell as it should look: one colour, with a number in its middle."""
    expected = Image.new("RGB", size, blue(share))
    font = ImageFont.truetype(findfont("DejaVu Sans"), 12, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(expected).text((size[0] // 2, size[1] // 2), text, ink, font, anchor="mm")
    return np.asarray(expected)


def test_cells_show_counts_and_shares_of_the_row() -> None:
    cells = cells_of(confusion_picture(np.array([[30, 10], [0, 25]]), ["push", "push up"], "test videos"), 2)
    for (row, column), share, text, ink in (
        ((0, 0), 0.75, "30", PAPER),
        ((0, 1), 0.25, "10", INK),
        ((1, 0), 0.0, "", INK),
        ((1, 1), 1.0, "25", PAPER),
    ):
        found = cells[row][column]
        assert np.array_equal(found, cell(share, text, (found.shape[1], found.shape[0]), ink)), (row, column)


def test_a_class_without_videos_has_no_share() -> None:
    for found in cells_of(confusion_picture(np.array([[0, 0], [0, 2]]), ["a", "b"], "t"), 2)[0]:
        assert np.array_equal(found, cell(0.0, "", (found.shape[1], found.shape[0]), INK))


def test_names_and_title_are_shown() -> None:
    counts = np.eye(2, dtype=np.int64)
    shown = np.asarray(confusion_picture(counts, ["push", "pull"], "one"))
    assert not np.array_equal(shown, np.asarray(confusion_picture(counts, ["push", "pull"], "two")))
    swapped = np.asarray(confusion_picture(counts, ["pull", "push"], "one"))
    assert shown.shape == swapped.shape
    differ = np.argwhere(np.any(shown != swapped, axis=2))
    beside = differ[differ[:, 1] < shown.shape[1] // 5, 0]
    assert beside.min() < len(shown) / 3 and beside.max() > len(shown) / 2, "one beside each row"


@pytest.mark.parametrize("count", [60, 400])
def test_many_classes_stay_legible(count: int) -> None:
    names = [f"class {i} " + "x" * 60 for i in range(count)]
    picture = confusion_picture(np.eye(count, dtype=np.int64), names, "t")
    assert max(picture.size) <= 1600
    colours = {tuple(colour) for colour in matrix_of(picture).reshape(-1, 3).tolist()}
    assert colours == {blue(0.0), blue(1.0)}, "counts would overlap"
    # every name shown is one block of ink in the column of names
    named = (np.asarray(picture)[:, 40:180] != 255).any(2).any(1)
    blocks = np.count_nonzero(np.diff(named.astype(int)) == 1)
    assert 40 <= blocks <= 100, "names stand apart"


@pytest.mark.parametrize(
    "name", ["", " ", "$", "a $x_{ b$ c", "\\frac", "two\nlines", "\x00", "\udc80", "emoji ✊", "x" * 200]
)
def test_names_are_taken_as_they_are(name: str) -> None:
    picture = confusion_picture(np.eye(2, dtype=np.int64), [name, "b"], name)
    assert picture.width < 2200
    assert matrix_of(picture).std() > 10
