"""Figures are drawn without a display, whatever names, words and sizes they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rbft.evaluation.figures import as_png, frames_png, strip_figure


def picture(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(as_png(figure))).convert("RGB"))


@pytest.mark.parametrize("name", ["$", "a $x_{ b$ c", "\\frac", "100%", "emoji ✊"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_and_words_are_never_read_as_formulas(name):
    frames = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
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
