"""The picture of a confusion matrix, for TensorBoard and the page.

It is painted cell by cell: every validation has one, and a figure of matplotlib takes several times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER = "#1f2933", "#ffffff"
_SMALL, _LARGE = 12, 15  # heights of letters in pixels
_GAP, _TICK = 6, 4
_CELL, _LEAST, _MOST = 46, 300, 1300  # pixels: a cell, and the side of the matrix
_LETTERS = 24  # of a name
_COUNTED = 30  # of more classes the counts would overlap


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # the other engine fails at some texts
    return ImageFont.truetype(findfont("DejaVu Sans"), size, layout_engine=ImageFont.Layout.BASIC)


def _shortened(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _LETTERS else f"{line[: _LETTERS - 3].rstrip()}..."


def _words(text: str, size: int, angle: float = 0) -> Image.Image:
    """A line of text as a mask, turned counter-clockwise."""
    font, text = _font(size), " ".join(text.split())
    width, height = math.ceil(font.getlength(text)) + 2, sum(font.getmetrics())
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((1, 0), text, 255, font)
    return mask.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else mask


def confusion_picture(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Image.Image:
    """Confusion matrix: rows are true classes, shares of the row as colour, counts as text.

    Args:
        counts: (C, C) numbers of videos.
        names: the classes.
        title: title above the matrix.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(_MOST, max(_LEAST, _CELL * len(names)))
    # where each cell begins, and the last ends
    edges = np.linspace(0, side, len(names) + 1).round().astype(int)
    # names that would stand on each other are left out
    shown = range(0, len(names), math.ceil((_SMALL + 2) * len(names) / side))
    labels = {i: _shortened(names[i]) for i in shown}
    beside = {i: _words(label, _SMALL) for i, label in labels.items()}
    below = {i: _words(label, _SMALL, 45) for i, label in labels.items()}
    heading, true, predicted = _words(title, _LARGE), _words("true", _LARGE, 90), _words("predicted", _LARGE)
    middles = (edges[:-1] + edges[1:]) // 2
    room = max(mask.width for mask in beside.values())
    # the first turned names reach to the left of the matrix
    room = max(room, *(mask.width - int(middles[i]) for i, mask in below.items()))
    left = _GAP + true.width + _GAP + room + _GAP + _TICK
    top = _GAP + heading.height + _GAP
    bottom = _TICK + max(mask.height for mask in below.values()) + _GAP + predicted.height + _GAP
    width = left + max(side, side // 2 + heading.width // 2) + 2 * _GAP
    picture = Image.new("RGB", (width, top + side + bottom), _PAPER)
    draw = ImageDraw.Draw(picture)

    def write(mask: Image.Image, x: int, y: int) -> None:
        picture.paste(_INK, (x, y), mask)

    write(heading, max(_GAP, left + (side - heading.width) // 2), _GAP)
    write(true, _GAP, top + (side - true.height) // 2)
    write(predicted, left + (side - predicted.width) // 2, top + side + bottom - predicted.height - _GAP)
    for i, mask in beside.items():
        middle = top + int(middles[i])
        draw.line((left - _TICK, middle, left, middle), _INK)
        write(mask, left - _TICK - _GAP - mask.width, middle - mask.height // 2)
    for i, mask in below.items():
        middle = left + int(middles[i])
        draw.line((middle, top + side, middle, top + side + _TICK), _INK)
        write(mask, middle - mask.width + _GAP, top + side + _TICK)
    cells = Image.fromarray(mpl.colormaps["Blues"](share, bytes=True)[..., :3])
    sizes = np.diff(edges)
    picture.paste(Image.fromarray(np.asarray(cells).repeat(sizes, 0).repeat(sizes, 1)), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_INK)
    if len(names) <= _COUNTED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = _PAPER if share[row, column] > 0.5 else _INK
            place = (left + int(middles[column]), top + int(middles[row]))
            draw.text(place, str(counts[row, column]), ink, _font(_SMALL), anchor="mm")
    return picture
