"""Clips on the way: where a whole video is decoded anyhow, the clips that will be read from it are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from av.video.frame import VideoFrame

from rbft.bounded_folder import BoundedFolder
from rbft.errors import VideoError
from rbft.video.budget import CellBudget, size_rule
from rbft.video.clip_entry import clip_folder, clip_key, pack_entry
from rbft.video.convert import RGBConverter
from rbft.video.frame_index import FrameIndex
from rbft.video.frame_target import FrameTarget
from rbft.video.sampling import FrameSampling

# Whole videos are decoded on every core at once; what is larger is left to those who read clip by clip.
_MOST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class ClipWish:
    """A clip that will be read from each video, and the cache in which it is looked for then.

    Args:
        folder: Of the clip cache.
        max_bytes: Of the clip cache.
        sampling: Which frames; neither random ones nor of a part.
        max_pixels: Most pixels of a frame; None for no bound.
        multiple: What both sides of a scaled frame are multiples of.
        budget: Bound on all frames together.
    """

    folder: Path
    max_bytes: int
    sampling: FrameSampling
    max_pixels: int | None
    multiple: int
    budget: CellBudget | None

    def __post_init__(self) -> None:
        if self.sampling.mode != "uniform" or self.sampling.part is not None:
            raise ValueError(f"only whole videos sampled uniformly can be kept on the way, not {self.sampling}")


class ClipGathering:
    """Puts one clip together from the frames of a video that is decoded from its start.

    Args:
        wish: The clip.
        path: The video, for messages.
        index: Of its frames.
    """

    def __init__(self, wish: ClipWish, path: str, index: FrameIndex) -> None:
        self._wish, self._index = wish, index
        self._possible = wish.sampling.fps is None or index.fps > 0
        self._indices = wish.sampling.indices(index.num_frames, index.fps) if self._possible else []
        rule = size_rule(len(self._indices), wish.max_pixels, wish.multiple, wish.budget)
        self._target = FrameTarget(self._indices, RGBConverter(path, rule))
        # as the reader names them
        self._missing = {int(index.pts[i]) if index.timed else i: i for i in self._indices}

    def put(self, frame: VideoFrame, order: int) -> None:
        """Keep a frame if it is one of the clip.

        Args:
            frame: As decoded.
            order: How many frames were displayed before it.
        """
        name = frame.pts if self._index.timed else order
        if not self._possible or name not in self._missing:
            return
        try:
            height, width = self._target.size_for(frame)
            self._possible = len(self._indices) * 3 * height * width <= _MOST_BYTES
            if self._possible:
                self._target.put(self._missing.pop(name), frame)
        except VideoError:
            self._possible = False  # who reads the clip is told why

    def keep(self, content: str) -> None:
        """Store the clip if it is whole.

        To be called for a video without any damage, whose frames all came.

        Args:
            content: Hash of the video's content.
        """
        if not self._possible or self._missing:
            return
        wish, index = self._wish, self._index
        key = clip_key(content, wish.sampling, wish.max_pixels, multiple=wish.multiple, budget=wish.budget)
        clip = {
            "timestamps": [index.timestamp(i) for i in self._indices],
            "indices": self._indices,
            "fps": index.fps,
            "duration": index.duration,
            "total_num_frames": index.num_frames,
        }
        _folder(wish.folder, wish.max_bytes).store(key, lambda: pack_entry(key, clip, self._target.array()))


@cache
def _folder(folder: Path, max_bytes: int) -> BoundedFolder:
    """One a process: it knows how much room it has left."""
    return clip_folder(folder, max_bytes)
