"""What a video is on disk, a file or a folder of images: whether it is there, how large, when changed, and its hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rbft.files import file_digest
from rbft.video.image_sequence import images_of, split_rate


def _images(path: Path) -> list[Path] | None:
    """The images of a sequence; None for a file.

    Raises:
        VideoError: The images are no sequence.
    """
    folder, rate = split_rate(str(path))
    return None if rate is None or path.is_file() else images_of(Path(folder))


def is_there(path: Path) -> bool:
    """Whether a video exists: a file, or a folder with its frame rate."""
    folder, rate = split_rate(str(path))
    return path.is_file() or (rate is not None and Path(folder).is_dir())


def content_bytes(path: Path) -> int:
    """Bytes of a video."""
    images = _images(path)
    return path.stat().st_size if images is None else sum(image.stat().st_size for image in images)


def content_status(path: Path) -> list[int]:
    """What changes when a video does; the time of a last change of status cannot be set back by hand."""
    images = _images(path)
    status = [file.stat() for file in ([path] if images is None else images)]
    count = [] if images is None else [len(images)]
    return [
        sum(file.st_size for file in status),
        max(file.st_mtime_ns for file in status),
        max(file.st_ctime_ns for file in status),
        status[0].st_ino,
        *count,
    ]


def content_digest(path: Path) -> str:
    """A hash of a video's content: of a file as `rbft.files.file_digest`, else of its images and its frame rate."""
    images = _images(path)
    if images is None:
        return file_digest(path)
    _, rate = split_rate(str(path))
    text = "\n".join([f"images, {rate}", *map(file_digest, images)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
