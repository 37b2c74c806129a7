"""How large the frames of a clip are."""

from __future__ import annotations

import math


def fit_size(height: int, width: int, max_pixels: int, multiple: int = 2) -> tuple[int, int]:
    """The largest size of at most `max_pixels` that keeps the aspect ratio and does not enlarge.

    Args:
        height: Height of the source in pixels.
        width: Width of the source in pixels.
        max_pixels: Most pixels (height times width) of the result.
        multiple: Both sides of the result are multiples of this, except that a side shorter than it stays as it is.

    Returns:
        Height and width.

    Raises:
        ValueError: An argument is below 1.
    """
    if min(height, width, max_pixels, multiple) < 1:
        raise ValueError(f"sizes must be at least 1: {height=}, {width=}, {max_pixels=}, {multiple=}")
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    short, long = sorted((height, width))
    fitted_short = _round_down(short * scale, multiple, short)
    # A short side that cannot shrink further leaves less to the long one than the aspect ratio asks for.
    fitted_long = _round_down(min(long * scale, max_pixels / fitted_short), multiple, long)
    return (fitted_short, fitted_long) if height <= width else (fitted_long, fitted_short)


def _round_down(value: float, multiple: int, original: int) -> int:
    """A multiple not above `value`, but at least one multiple or the original if that is less."""
    return max(int(value) // multiple * multiple, min(multiple, original))
