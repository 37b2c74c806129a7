"""Frame-exact reading: exactly the frames that were asked for, intact, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from av.packet import Packet
from torch import Tensor

from rbft.errors import VideoError
from rbft.video.container import DEFAULT_LIMITS, MEDIA_ERRORS, Limits, OpenVideo, open_video
from rbft.video.convert import FrameTarget, RGBConverter, SizeRule
from rbft.video.decoding import DecodingRun, Shown, decode_all
from rbft.video.frame_index import FrameIndex, build_index


@dataclass(frozen=True, eq=False)
class DecodedFrames:
    """Frames of one video.

    Args:
        frames: (T, C, H, W) uint8 RGB.
        timestamps: T times in seconds since the first displayed frame of the video.
        indices: T frame indices in order of display.
    """

    frames: Tensor
    timestamps: tuple[float, ...]
    indices: tuple[int, ...]


class FrameMissingError(VideoError):
    """The video ends before a frame that was asked for.

    Args:
        path: The file, as it was named.
        reason: What is missing.
        num_frames: Frames that the video does have.
    """

    def __init__(self, path: object, reason: str, num_frames: int) -> None:
        super().__init__(path, reason)
        self.num_frames = num_frames

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.reason, self.num_frames)


class VideoReader:
    """Reads frames of one open video by their index in order of display.

    Args:
        video: The video, freshly opened.
        reopen: Opens the same video again, for decoding from its start.
        index: Of its frames, if it is known.
    """

    def __init__(
        self,
        video: OpenVideo,
        reopen: Callable[[], AbstractContextManager[OpenVideo]],
        index: FrameIndex | None = None,
    ) -> None:
        self._video = video
        self._reopen = reopen
        self.index: FrameIndex = build_index(video) if index is None else index

    def read(self, indices: Sequence[int], size: tuple[int, int] | SizeRule | None = None) -> DecodedFrames:
        """Decodes the wanted frames and as little else as the coding allows.

        Where time stamps name the frames, decoding starts at the key frame before each group of targets and ends
        with the last packet that matters. If a target does not turn up there undamaged, and in untimed videos always,
        decoding goes from the start of the file.

        Args:
            indices: Frame indices, in any order, with repetitions or without.
            size: Height and width of the results as displayed, or a rule that gives them for the displayed
                height and width of a frame; None keeps the size of the first frame decoded.

        Raises:
            FrameMissingError: The video ends before a wanted frame.
            VideoError: A wanted frame is damaged or its colours cannot be converted.
        """
        indices = [int(index) for index in indices]
        if not indices:
            raise ValueError("indices is empty: ask for at least one frame")
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self.index.num_frames:
            raise self._missing(wanted[0] if wanted[0] < 0 else wanted[-1], self.index.num_frames)
        target = FrameTarget(indices, RGBConverter(self._video.path, size))
        if not (self.index.timed and self._read_by_seeking(wanted, target)):
            self._read_from_start(wanted, target)
        timestamps = tuple(self.index.timestamp(index) for index in indices)
        return DecodedFrames(torch.from_numpy(target.array()), timestamps, tuple(indices))

    def _read_by_seeking(self, wanted: list[int], target: FrameTarget) -> bool:
        """Reads from key frame to key frame; False if a frame does not turn up where it should, undamaged."""
        starts = np.searchsorted(self.index.keyframes[:, 0], self.index.pts[wanted], side="right") - 1
        for start in np.unique(starts):
            group = {int(self.index.pts[i]): i for i, s in zip(wanted, starts, strict=True) if s == start}
            run = DecodingRun(self._video.stream.codec_context, skip=True)
            places: dict[int, tuple[int, int]] = {}
            for frame, order, position in self._decode_group(run, int(start), group):
                if frame.pts in group:
                    index = group[frame.pts]
                    target.put(index, frame)
                    places[index] = (order, position)
            if len(places) < len(group) or any(run.damage_to(*place) for place in places.values()):
                return False
        return True

    def _decode_group(self, run: DecodingRun, start: int, group: Mapping[int, int]) -> Iterator[Shown]:
        """Decodes from a key frame to the last packet whose time stamp is in `group`."""
        ahead: dict[int | None, int] = {pts: int(self.index.sizes[index]) for pts, index in group.items()}
        for packet in self._packets_from(start):
            wanted = packet.pts in ahead
            if wanted and packet.size != ahead.pop(packet.pts):
                return
            yield from run.feed(packet, wanted)
            if not ahead:
                break
        yield from run.finish()

    def _packets_from(self, start: int) -> Iterator[Packet]:
        """The video stream's packets from key frame number `start` on; none if seeking does not lead there."""
        pts, position, size = (int(value) for value in self.index.keyframes[start])
        try:
            self._video.container.seek(position, stream=self._video.stream)
            packets = self._video.packets()
            for packet in packets:
                if packet.is_keyframe and packet.pts is not None and packet.pts >= pts:
                    if packet.pts == pts and packet.size == size:
                        yield packet
                        yield from packets
                    return
        except MEDIA_ERRORS:
            return  # what was wanted beyond is missing, which the caller notices

    def _read_from_start(self, wanted: list[int], target: FrameTarget) -> None:
        """Reads by decoding everything up to the last wanted frame; what is missing or damaged then is so."""
        timed = self.index.timed
        names = {int(self.index.pts[i]) if timed else i: i for i in wanted}
        places: dict[int, tuple[int, int]] = {}
        displayed = 0
        with self._reopen() as video:
            run = DecodingRun(video.stream.codec_context, skip=False)
            for frame, order, position in decode_all(video, run):
                displayed += 1
                name = frame.pts if timed else order
                if name in names:
                    index = names[name]
                    target.put(index, frame)
                    places[index] = (order, position)
                    if len(places) == len(names):
                        run.finish()
                        break
        for index in wanted:
            what = run.damage_to(*places[index]) if index in places else run.first_damage()
            if what:
                seconds = self.index.timestamp(index)
                raise VideoError(self._video.path, f"frame {index} (at {seconds:.2f} s) is damaged: {what}")
            if index not in places:
                raise self._missing(index, displayed)

    def _missing(self, index: int, available: int) -> FrameMissingError:
        declared = self.index.declared_frames
        says = f"; its header declares {declared}" if declared and declared != available else ""
        reason = f"frame {index} does not exist: {available} frames can be read{says}"
        return FrameMissingError(self._video.path, reason, available)


@contextmanager
def open_reader(
    path: str | Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS, *, often: bool = False
) -> Iterator[VideoReader]:
    """Opens and indexes a video for reading by frame index within a `with` block.

    Args:
        path: The video, absolute or relative to `root`.
        root: The folder the file has to lie in; None for no such bound.
        limits: What the file may cost.
        often: Whether parts of the video are read one after the other, so that its index is worth remembering; it is
            built anew when the file's size or times change.

    Raises:
        VideoError: As :func:`rbft.video.container.open_video`, or the file holds no frame.
    """
    reopen = partial(open_video, path, root, limits)
    with reopen() as video:
        if not often:
            yield VideoReader(video, reopen)
            return
        file = Path(root or "") / path
        status = file.stat()
        key = (file.absolute(), status.st_size, status.st_mtime_ns, status.st_ctime_ns, limits)
        reader = VideoReader(video, reopen, _INDICES.pop(key, None))
        _INDICES[key] = reader.index
        for oldest in list(_INDICES)[:-_REMEMBERED]:
            del _INDICES[oldest]
        yield reader


_REMEMBERED = 4
_INDICES: dict[tuple[object, ...], FrameIndex] = {}  # of this process, the last used at the end


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    size: tuple[int, int] | None = None,
    root: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> DecodedFrames:
    """Reads frames of a video by index in order of display, see :meth:`VideoReader.read`.

    Args:
        path: The video, absolute or relative to `root`.
        indices: Frame indices, in any order, with repetitions or without.
        size: Height and width of the results as displayed; None keeps the video's own.
        root: The folder the file has to lie in; None for no such bound.
        limits: What the file may cost.

    Raises:
        VideoError: The file is refused, or a wanted frame does not exist, is damaged or cannot be converted.
    """
    with open_reader(path, root, limits) as reader:
        return reader.read(indices, size)


def count_frames(path: str | Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> int:
    """Counts the frames that decode undamaged, by decoding all of them.

    Args:
        path: The video, absolute or relative to `root`.
        root: The folder the file has to lie in; None for no such bound.
        limits: What the file may cost.

    Raises:
        VideoError: The file is refused by :func:`rbft.video.container.open_video`.
    """
    with open_video(path, root, limits) as video:
        run = DecodingRun(video.stream.codec_context, skip=False)
        places = [(order, position) for _, order, position in decode_all(video, run)]
        return sum(run.damage_to(*place) is None for place in places)
