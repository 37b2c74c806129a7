"""Charts as inline SVG: colours come from the page's style, so that they suit light and dark; every word is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rbft.evaluation.calibration import Bin

COLOURS = 8
"""The page's style names so many, `--c0` and on; series of the same colour differ in the shape of their marks."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 400.0, 280.0, 56.0, 42.0, 10.0, 50.0
_SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Dot:
    """A value with its interval.

    Args:
        x: position on the x axis, from 0 to 1.
        y: the value, from 0 to 1.
        low: lower end of the interval, None for none.
        high: upper end.
        title: text shown under the pointer.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    title: str


@dataclass(frozen=True)
class Series:
    """Values that belong together.

    Args:
        number: number of the colour and of the mark.
        dots: values from left to right.
        joined: whether a line connects them.
    """

    number: int
    dots: tuple[Dot, ...]
    joined: bool = True


def mark(number: int, x: float, y: float, size: float = 4.5) -> Markup:
    """The mark of a series: its colour and its shape."""
    shape, style = _SHAPES[number % len(_SHAPES)], Markup('fill="var(--c{})"').format(number % COLOURS)
    if shape == "circle":
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" {}/>').format(x, y, size, style)
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[shape]
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return Markup('<polygon points="{}" {}/>').format(points, style)


def legend_mark(number: int) -> Markup:
    """The mark of a series beside its name."""
    return Markup('<svg class="mark" viewBox="0 0 14 14" aria-hidden="true">{}</svg>').format(mark(number, 7, 7))


def _line(x1: float, y1: float, x2: float, y2: float, extra: Markup) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" {}/>').format(x1, y1, x2, y2, extra)


def _text(x: float, y: float, anchor: str, words: str, extra: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, Markup(extra), words)


_AXIS, _GRID = Markup('class="axis"'), Markup('class="grid"')


def chart(
    series: Sequence[Series],
    ticks: Sequence[tuple[float, str]],
    x_title: str,
    y_title: str,
    about: str,
    floor: tuple[float, str] | None = None,
) -> Markup:
    """Values from 0 to 1 over an axis.

    Args:
        series: series to draw.
        ticks: positions on the x axis from 0 to 1, with their labels.
        x_title: title of the x axis.
        y_title: title of the y axis.
        about: text for a screen reader.
        floor: a value drawn as a horizontal line, with its label.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + width * (0.04 + 0.92 * x), _TOP + height * (1 - y)

    parts = []
    for fifth in range(6):
        _, y = place(0, fifth / 5)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, _AXIS if fifth == 0 else _GRID))
        parts.append(_text(_LEFT - 6, y + 4, "end", f"{20 * fifth}%"))
    for tick, words in ticks:
        x, y = place(tick, 0)
        parts += [_line(x, y, x, y + 4, _AXIS), _text(x, y + 17, "middle", words)]
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 6, "middle", x_title, ' class="title"'))
    across = Markup(' class="title" transform="rotate(-90 11 {:.1f})"').format(_TOP + height / 2)
    parts.append(_text(11, _TOP + height / 2, "middle", y_title, across))
    if floor is not None:
        _, y = place(0, floor[0])
        parts += [
            _line(_LEFT, y, _WIDTH - _RIGHT, y, Markup('class="floor-line"')),
            _text(_WIDTH - _RIGHT + 5, y + 4, "start", floor[1]),
        ]
    for line in series:
        stroke = Markup('stroke="var(--c{})"').format(line.number % COLOURS)
        spots = [place(dot.x, dot.y) for dot in line.dots]
        if line.joined and len(spots) > 1:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            parts.append(Markup('<polyline points="{}" fill="none" stroke-width="2" {}/>').format(points, stroke))
        for dot, (x, y) in zip(line.dots, spots, strict=True):
            bar = Markup()
            if dot.low is not None and dot.high is not None:
                low, high = (place(0, min(1.0, max(0.0, end)))[1] for end in (dot.low, dot.high))
                bar = _line(x, low, x, high, Markup('stroke-width="1.5" {}').format(stroke))
            parts.append(Markup("<g><title>{}</title>{}{}</g>").format(dot.title, bar, mark(line.number, x, y)))
    return _figure(_WIDTH, _HEIGHT, about, parts)


def reliability_chart(bins: Sequence[Bin], number: int, about: str) -> Markup:
    """A reliability diagram: accuracy against confidence, beside the diagonal of a calibrated classifier.

    Args:
        bins: bins of `rbft.evaluation.calibration.reliability`.
        number: number of the colour.
        about: text for a screen reader.
    """
    side, left, top = 230.0, 56.0, 10.0
    parts = []
    for fifth in range(6):
        y, x = top + side * (1 - fifth / 5), left + side * fifth / 5
        parts += [
            _line(left, y, left + side, y, _AXIS if fifth == 0 else _GRID),
            _text(left - 6, y + 4, "end", f"{20 * fifth}%"),
            _text(x, top + side + 17, "middle", f"{20 * fifth}%"),
        ]
    most = max(1, max((entry.count for entry in bins), default=1))
    for entry in bins:
        if entry.confidence is None or entry.accuracy is None:
            continue
        x, width = left + side * entry.low, side * (entry.high - entry.low)
        tall = side * entry.accuracy
        words = f"{entry.count} answers, {entry.confidence:.1%} sure, {entry.accuracy:.1%} right"
        # narrow where few answers are
        share = 0.25 + 0.65 * entry.count / most
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="var(--c{})"><title>{}</title></rect>'
            ).format(
                x + width * (1 - share) / 2,
                top + side - max(tall, 1.5),
                width * share,
                max(tall, 1.5),
                number % COLOURS,
                words,
            )
        )
    parts.append(_line(left, top + side, left + side, top, Markup('class="floor-line"')))
    parts.append(_text(left + side / 2, top + side + 36, "middle", "confidence", ' class="title"'))
    across = Markup(' class="title" transform="rotate(-90 11 {:.1f})"').format(top + side / 2)
    parts.append(_text(11, top + side / 2, "middle", "accuracy", across))
    return _figure(left + side + 16, top + side + 44, about, parts)


def _figure(width: float, height: float, about: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
        width, height, about
    )
    return head + Markup().join(parts) + Markup("</svg>")
