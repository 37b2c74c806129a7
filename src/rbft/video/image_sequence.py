"""A folder of numbered images as a video: how it is named with its frame rate, and which images it has, in order."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from rbft.errors import VideoError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What counts as an image, by lower-case extension; what it is decoded as, its first bytes say."""

_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)", re.DOTALL)
_RATE = re.compile(r"#fps=(\d+(?:\.\d+)?)$")


def sequence_name(path: str, rate: float) -> str:
    """A folder of images and its frame rate in one text, such as `fall/kitchen_01#fps=25`."""
    return f"{path}#fps={rate:.10g}"


def split_rate(name: str) -> tuple[str, Fraction | None]:
    """The folder and the frame rate that `sequence_name` put together; None where no rate is named."""
    match = _RATE.search(name)
    rate = Fraction(match[1]) if match is not None else Fraction(0)
    return (name, None) if match is None or not rate else (name[: match.start()], rate)


def is_sequence(folder: Path) -> bool:
    """Whether a folder holds numbered images; whether they are a sound sequence shows when it is read."""
    return next(_numbered(folder), None) is not None


def count_images(folder: Path) -> int:
    """Number of numbered images in a folder."""
    return sum(1 for _ in _numbered(folder))


def _numbered(folder: Path) -> Iterator[tuple[str, int, str, os.DirEntry[str]]]:
    """Words before the number, number, lower-case suffix and entry of each numbered image, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            match = None if entry.name.startswith(".") else _NUMBERED.fullmatch(entry.name)
            if match is not None and (suffix := match[3].lower()) in SUFFIXES:
                yield match[1], int(match[2]), suffix, entry


def images_of(folder: Path, root: Path | None = None) -> list[Path]:
    """The images of a sequence, by number.

    Args:
        folder: the folder.
        root: the folder that the images have to lie in, links followed; None: `folder` itself.

    Raises:
        VideoError: It holds no numbered images or several sequences, a number is missing or stands twice, or an image
            lies outside of the root.
    """
    found = sorted(_numbered(folder), key=lambda image: image[1])
    if not found:
        raise VideoError(folder, f"holds no numbered images ({', '.join(SUFFIXES)})")
    for what, kinds in (("words before the number", {image[0] for image in found}), ("suffix", {i[2] for i in found})):
        if len(kinds) > 1:
            raise VideoError(
                folder,
                f"holds several sequences of images, by their {what} ({', '.join(map(repr, sorted(kinds)[:5]))}); "
                "give each a folder of its own",
            )
    numbers = [image[1] for image in found]
    steps = [after - before for before, after in pairwise(numbers)]
    step = min(filter(None, steps), default=1)  # every fifth frame of a video is a sequence, too
    for number, gap in zip(numbers, steps, strict=False):
        if gap == 0:
            raise VideoError(folder, f"holds two images of the number {number}")
        if gap != step:
            raise VideoError(
                folder, f"is incomplete: after image {number} comes {number + gap}, and {number + step} is missing"
            )
    base = Path(root if root is not None else folder).resolve()
    return [_inside(folder, entry, base) for *_, entry in found]


def _inside(folder: Path, entry: os.DirEntry[str], base: Path) -> Path:
    """The image, if it is a regular file; its links are followed as far as they stay in the base."""
    path = Path(entry.path)
    try:
        target = path.resolve(strict=True) if entry.is_symlink() else path
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise VideoError(folder, f"its image {entry.name} cannot be reached: {error}") from error
    if not stat.S_ISREG(mode):
        raise VideoError(folder, f"its image {entry.name} is no regular file")
    if entry.is_symlink() and not target.is_relative_to(base):
        raise VideoError(folder, f"its image {entry.name} leads to {target}, outside of {base}")
    return target
