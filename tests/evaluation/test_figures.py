"""Figures are drawn without a display, whatever names, words and sizes they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rbft.evaluation.figures import as_png, confusion_figure, frames_png, strip_figure


def picture(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(as_png(figure))).convert("RGB"))


def texts(figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_confusion_shows_counts_and_shares_of_the_row():
    figure = confusion_figure(np.array([[3, 1], [0, 2]]), ["push", "push up"], "test videos")
    axes = figure.axes[0]
    assert texts(figure) == {"3", "1", "2"}
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["push", "push up"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "true", "test videos")
    assert picture(figure).std() > 10


def test_confusion_of_an_empty_row_is_zero():
    figure = confusion_figure(np.array([[0, 0], [0, 2]]), ["a", "b"], "t")
    assert figure.axes[0].images[0].get_array().tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_confusion_of_many_classes_stays_legible():
    names = [f"class {i} " + "x" * 60 for i in range(60)]
    figure = confusion_figure(np.eye(60, dtype=np.int64), names, "t")
    assert max(figure.get_size_inches()) <= 14
    assert texts(figure) == set(), "counts would overlap"
    assert all(len(label.get_text()) <= 24 for label in figure.axes[0].get_xticklabels())


@pytest.mark.parametrize("name", ["$", "a $x_{ b$ c", "\\frac", "100%", "emoji ✊"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_and_words_are_never_read_as_formulas(name):
    frames = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    picture(confusion_figure(np.eye(2, dtype=np.int64), [name, "b"], name))
    picture(strip_figure(frames, name, name))


def test_frames_stand_in_order_from_left_to_right():
    frames = torch.zeros((3, 3, 10, 20), dtype=torch.uint8)
    for channel in range(3):
        frames[channel, channel] = 255
    shown = np.asarray(Image.open(io.BytesIO(frames_png(frames))))
    assert shown.shape == (60, 3 * 120 + 2 * 2, 3), "as high as wide frames are, with a gap between them"
    height, width = shown.shape[:2]
    middles = [shown[height // 2, int(width * (i + 0.5) / 3)].tolist() for i in range(3)]
    assert middles == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 64])
def test_at_most_eight_frames_are_shown(count):
    shown = Image.open(io.BytesIO(frames_png(torch.zeros((count, 3, 8, 8), dtype=torch.uint8))))
    assert shown.width == 122 * min(count, 8) - 2


def test_strips_carry_their_words():
    frames = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    figure = strip_figure(frames, "1.mp4  [push]", "It moves. " * 300)
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "1.mp4  [push]"
    assert words[1].startswith("It moves.")
    assert words[1].count("\n") == 11, "a long text is cut, the figure stays small"
    assert strip_figure(frames, "t", "").texts[1].get_text() == "(empty)"
