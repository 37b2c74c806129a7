"""Figures shared by TensorBoard and the page; drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

_INK, _PAPER = "#1f2933", "#ffffff"
_FRAMES, _FRAME_WIDTH = 8, 1.5  # inches
_PIXELS, _GAP = 120, 2


def _plain(text: str) -> str:
    """Dollar signs would start matplotlib's formula mode."""
    return text.replace("$", r"\$")


def confusion_figure(counts: Tensor, names: Sequence[str], title: str) -> Figure:
    """Confusion matrix: rows are true classes, shares of the row as colour, counts as text.

    Args:
        counts: (C, C) videos.
        names: The classes.
        title: Above the figure.
    """
    values = counts.numpy()
    share = values / np.maximum(values.sum(1, keepdims=True), 1)
    size = min(14.0, max(4.0, 1.6 + 0.42 * len(names)))
    figure = Figure(figsize=(size, size), dpi=110, layout="constrained", facecolor=_PAPER)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    labels = [_plain(textwrap.shorten(name, 24, placeholder="...")) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(_plain(title), fontsize=10, color=_INK)
    if len(names) <= 30:
        for row, column in np.ndindex(*values.shape):
            if values[row, column]:
                ink = _PAPER if share[row, column] > 0.5 else _INK
                axes.text(column, row, str(values[row, column]), ha="center", va="center", fontsize=8, color=ink)
    return figure


def _lay_out(figure: Figure, frames: Tensor, bottom: float, height: float) -> None:
    """Frames (N, C, H, W) side by side; `bottom` and `height` as parts of the figure."""
    for number, frame in enumerate(frames):
        axes = figure.add_axes((number / len(frames), bottom, 0.99 / len(frames), height))
        axes.imshow(frame.permute(1, 2, 0).numpy())
        axes.axis("off")


def _shown(frames: Tensor) -> tuple[Tensor, float]:
    """At most eight frames, and the height of their row in inches."""
    shown = frames[:: max(1, len(frames) // _FRAMES)][:_FRAMES]
    return shown, _FRAME_WIDTH * shown.shape[-2] / shown.shape[-1]


def frames_png(frames: Tensor) -> bytes:
    """Frames of a clip side by side, as a PNG file; no figure is laid out for it, because a page has many.

    Args:
        frames: (T, C, H, W) uint8.
    """
    shown, _ = _shown(frames)
    height = max(1, round(_PIXELS * shown.shape[-2] / shown.shape[-1]))
    strip = Image.new("RGB", ((_PIXELS + _GAP) * len(shown) - _GAP, height), _PAPER)
    for number, frame in enumerate(shown):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((_PIXELS, height), Image.Resampling.BILINEAR)
        strip.paste(picture, (number * (_PIXELS + _GAP), 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="png")
    return buffer.getvalue()


def strip_figure(frames: Tensor, title: str, text: str) -> Figure:
    """Frames of a clip side by side, with the words about it below.

    Args:
        frames: (T, C, H, W) uint8.
        title: Above the frames.
        text: Below the frames.
    """
    shown, row = _shown(frames)
    lines = textwrap.wrap(text, 120)[:12] or ["(empty)"]
    height = row + 0.45 + 0.2 * len(lines)
    figure = Figure(figsize=(_FRAME_WIDTH * len(shown), height), dpi=110, facecolor=_PAPER)
    _lay_out(figure, shown, 1 - (0.3 + row) / height, row / height)
    figure.text(0.005, 1 - 0.07 / height, _plain(title), va="top", fontsize=9, weight="bold", color=_INK)
    figure.text(0.005, 0.07 / height, _plain("\n".join(lines)), va="bottom", fontsize=9, color=_INK)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
