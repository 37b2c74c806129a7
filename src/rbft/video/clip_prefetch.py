"""Clips fetched early: where a whole video is decoded anyhow, the clips that will be read from it are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from av.video.frame import VideoFrame

from rbft.disk_cache import BoundedFolder
from rbft.errors import VideoError
from rbft.video.clip_entry import clip_folder, clip_key, pack_entry
from rbft.video.clip_spec import ClipSpec
from rbft.video.convert import FrameTarget, RGBConverter
from rbft.video.frame_index import FrameIndex

# Whole videos are decoded on every core at once; what is larger is left to those who read clip by clip.
_MOST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class ClipRequest:
    """A clip that will be read from each video, and the cache in which it is looked for then.

    Args:
        folder: folder of the clip cache.
        max_bytes: bound of the clip cache.
        spec: how the clip is read; its frames are neither random nor of a part.
    """

    folder: Path
    max_bytes: int
    spec: ClipSpec

    def __post_init__(self) -> None:
        sampling = self.spec.sampling
        if sampling.mode != "uniform" or sampling.part is not None:
            raise ValueError(f"only clips of whole videos sampled uniformly can be fetched early, not {sampling}")


class ClipPrefetch:
    """Puts one clip together from the frames of a video that is decoded from its start.

    Args:
        request: the clip.
        path: the video, for messages.
        index: index of its frames.
    """

    def __init__(self, request: ClipRequest, path: str, index: FrameIndex) -> None:
        self._request, self._index = request, index
        spec = request.spec
        self._possible = spec.sampling.fps is None or index.fps > 0
        self._indices = spec.sampling.indices(index.timeline(0, index.num_frames)) if self._possible else []
        size = partial(spec.frame_size, len(self._indices))
        self._target = FrameTarget(self._indices, RGBConverter(path, size))
        # as the reader names them
        self._missing = {int(index.pts[i]) if index.timed else i: i for i in self._indices}

    def put(self, frame: VideoFrame, order: int) -> None:
        """Keep a frame if it is one of the clip.

        Args:
            frame: the decoded frame.
            order: number of frames displayed before it.
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
            self._possible = False  # the reader of the clip reports why

    def keep(self, content: str) -> None:
        """Store the clip if it is whole.

        To be called for a video without any damage, whose frames all came.

        Args:
            content: Hash of the video's content.
        """
        if not self._possible or self._missing:
            return
        request, index = self._request, self._index
        clip = {
            "timestamps": [index.timestamp(i) for i in self._indices],
            "indices": self._indices,
            "fps": index.fps,
            "duration": index.duration,
            "total_num_frames": index.num_frames,
            "steady": index.steady,
        }
        key = clip_key(content, request.spec)
        _folder(request.folder, request.max_bytes).store(key, lambda: pack_entry(key, clip, self._target.array()))


@cache
def _folder(folder: Path, max_bytes: int) -> BoundedFolder:
    """One a process: it knows how much room it has left."""
    return clip_folder(folder, max_bytes)
