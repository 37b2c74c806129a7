"""Small clip caches, the videos they are filled with, and when two clips are the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from tests.support.videos import write_video

from rbft.files import file_digest
from rbft.video.clip import Clip
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling

FOUR = ClipSpec(FrameSampling(num_frames=4))
GB = 10**9


def three_videos(folder: Path) -> Path:
    """0.mp4 ... 2.mp4, each of other length."""
    for number in range(3):
        write_video(folder / f"{number}.mp4", num_frames=20 + 3 * number, size=(48, 64))
    return folder


def two_classes(folder: Path) -> Path:
    """Two classes of two videos; every class needs its own."""
    for number, label in enumerate(("archery", "fencing")):
        for copy in range(2):
            (folder / label).mkdir(exist_ok=True)
            write_video(folder / label / f"{copy}.mp4", num_frames=20 + 2 * number + copy, size=(48, 64))
    return folder


def make(folder: Path, max_bytes: int = GB) -> ClipCache:
    return ClipCache(folder, max_bytes, file_digest)


def same(clip: Clip, other: Clip) -> bool:
    return torch.equal(clip.frames, other.frames) and all(
        getattr(clip, field.name) == getattr(other, field.name) for field in fields(Clip) if field.name != "frames"
    )
