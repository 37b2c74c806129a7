"""Figures shared by TensorBoard and the page; drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from rbft.evaluation.calibration import Bin, expected_error

if TYPE_CHECKING:
    from torch import Tensor

_INK, _PAPER = "#1f2933", "#ffffff"
_FRAMES, _FRAME_WIDTH = 8, 1.5  # inches
_PIXELS, _GAP = 120, 2


def _plain(text: str) -> str:
    """Dollar signs would start matplotlib's formula mode."""
    return text.replace("$", r"\$")


def reliability_figure(sides: Mapping[str, Sequence[Bin]], title: str) -> Figure:
    """Reliability diagrams side by side: accuracy of the answers in each bin of confidence.

    The diagonal is what a calibrated classifier keeps to. A point stands at a bin's mean confidence, the larger the
    more answers it has.

    Args:
        sides: bins by the name of the probabilities they belong to.
        title: title above the figure.
    """
    figure = Figure(figsize=(3.6 * len(sides), 3.9), dpi=110, layout="constrained", facecolor=_PAPER)
    for axes, (name, bins) in zip(figure.subplots(1, len(sides), squeeze=False)[0], sides.items(), strict=True):
        most = max(1, max(entry.count for entry in bins))
        for entry in bins:
            if entry.confidence is None or entry.accuracy is None:
                continue
            width = entry.high - entry.low
            axes.bar(entry.low, entry.accuracy, width, align="edge", color="#9ecae1", edgecolor=_PAPER)
            axes.plot(entry.confidence, entry.accuracy, "o", color="#08519c", markersize=3 + 6 * entry.count / most)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
        total = sum(entry.count for entry in bins)
        axes.set_title(
            _plain(f"{title}, {name}\nECE {expected_error(bins):.1%}, {total} videos"), fontsize=9, color=_INK
        )
    return figure


def _lay_out(figure: Figure, frames: Tensor, bottom: float, height: float) -> None:
    """Frames (N, C, H, W) side by side; `bottom` and `height` as parts of the figure."""
    # as one picture: laying out axes takes longer than drawing them
    gap = max(1, round(0.01 * frames.shape[-1]))
    strip = np.full((frames.shape[-2], len(frames) * (frames.shape[-1] + gap) - gap, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        left = number * (frames.shape[-1] + gap)
        strip[:, left : left + frames.shape[-1]] = frame.permute(1, 2, 0).numpy()
    axes = figure.add_axes((0, bottom, 1, height))
    axes.imshow(strip)
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
    buffer = io.BytesIO()
    _strip(frames).save(buffer, format="png")
    return buffer.getvalue()


def frames_jpeg(frames: Tensor) -> bytes:
    """The frames of `frames_png` as a JPEG file: a tenth of the bytes where the video was filmed with a camera."""
    buffer = io.BytesIO()
    _strip(frames).save(buffer, format="jpeg", quality=80)
    return buffer.getvalue()


def _strip(frames: Tensor) -> Image.Image:
    shown, _ = _shown(frames)
    height = max(1, round(_PIXELS * shown.shape[-2] / shown.shape[-1]))
    strip = Image.new("RGB", ((_PIXELS + _GAP) * len(shown) - _GAP, height), _PAPER)
    for number, frame in enumerate(shown):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((_PIXELS, height), Image.Resampling.BILINEAR)
        strip.paste(picture, (number * (_PIXELS + _GAP), 0))
    return strip


def strip_figure(frames: Tensor, title: str, text: str) -> Figure:
    """Frames of a clip side by side, with the words about it below.

    Args:
        frames: (T, C, H, W) uint8.
        title: title above the frames.
        text: text below the frames.
    """
    shown, row = _shown(frames)
    lines = textwrap.wrap(text, 120)[:12] or ["(empty)"]
    height = row + 0.45 + 0.2 * len(lines)
    figure = Figure(figsize=(_FRAME_WIDTH * len(shown), height), dpi=110, facecolor=_PAPER)
    _lay_out(figure, shown, 1 - (0.3 + row) / height, row / height)
    figure.text(0.005, 1 - 0.07 / height, _plain(title), va="top", fontsize=9, weight="bold", color=_INK)
    figure.text(0.005, 0.07 / height, _plain("\n".join(lines)), va="bottom", fontsize=9, color=_INK)
    return figure


def as_png(picture: Figure | Image.Image) -> bytes:
    """A figure or painted picture as a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png")
    else:
        picture.save(buffer, format="png")
    return buffer.getvalue()
