"""Frame-exact reading: exactly the frames that were asked for, intact, or a refusal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from av.packet import Packet
from torch import Tensor

from rbft.errors import VideoError
from rbft.video.container import (
    DEFAULT_LIMITS,
    MEDIA_ERRORS,
    Limits,
    OpenVideo,
    SlowVideoError,
    one_video,
    open_video,
    resolve_inside,
)
from rbft.video.content import content_status
from rbft.video.convert import FrameTarget, RGBConverter, SizeRule
from rbft.video.decoding import DecodingRun, ForwardPass, Shown, decode_all
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
        reason: what is missing.
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
        index: index of its frames, if it is known.
        often: whether parts are read one after the other: decoding from the start then goes on where it stopped, in
            a video that stays open until `close`.
    """

    def __init__(
        self,
        video: OpenVideo,
        reopen: Callable[[], AbstractContextManager[OpenVideo]],
        index: FrameIndex | None = None,
        often: bool = False,
    ) -> None:
        self._video = video
        self._reopen = reopen
        self._passes = ExitStack() if often else None
        self._forward: ForwardPass | None = None
        self.index: FrameIndex = build_index(video) if index is None else index

    def close(self) -> None:
        """Close what was opened beside the video."""
        if self._passes is not None:
            self._passes.close()
            self._forward = None

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
        with self._forward_to(min(names)) as forward:
            for name, (frame, order, position) in forward:
                if name in names:
                    index = names[name]
                    target.put(index, frame)
                    places[index] = (order, position)
                    if len(places) == len(names):
                        forward.look_ahead()
                        break
        run = forward.run
        for index in wanted:
            what = run.damage_to(*places[index]) if index in places else run.first_damage()
            if what:
                seconds = self.index.timestamp(index)
                raise VideoError(self._video.path, f"frame {index} (at {seconds:.2f} s) is damaged: {what}")
            if index not in places:
                raise self._missing(index, run.displayed)

    @contextmanager
    def _forward_to(self, name: int) -> Iterator[ForwardPass]:
        """A pass over the video that has the frame of this name before it: the one under way, or one from the start."""
        if self._passes is None:
            with self._reopen() as video:
                yield ForwardPass(video, self.index.timed)
            return
        if self._forward is None or not self._forward.is_before(name):
            self._passes.close()
            self._forward = ForwardPass(self._passes.enter_context(self._reopen()), self.index.timed)
        yield self._forward

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
        limits: limits on the cost of a file.
        often: Whether parts of the video are read one after the other, so that its index is worth remembering and the
            file is left open; both are made anew when the file's size or times change.

    Raises:
        VideoError: As :func:`rbft.video.container.open_video`, or the file holds no frame.
    """
    with one_video(), _reader(path, root, limits, often=often) as reader:
        yield reader


@contextmanager
def _reader(path: str | Path, root: Path | None, limits: Limits, *, often: bool) -> Iterator[VideoReader]:
    reopen = partial(open_video, path, root, limits)
    if not often:
        with reopen() as video:
            yield VideoReader(video, reopen)
        return
    file = resolve_inside(root, path)
    key = (file, root, *content_status(file), limits)
    place = (os.getpid(), *key)
    known = _INDICES.pop(key, None)
    reader, opened = _OPEN.pop(place) if place in _OPEN else _open_often(reopen, known)
    _INDICES[key] = reader.index
    for oldest in list(_INDICES)[:-_REMEMBERED]:
        del _INDICES[oldest]
    sound = False
    try:
        yield reader
        sound = True
    except VideoError as error:
        # one that was left in the middle of its packets cannot go on from there
        sound = not isinstance(error, SlowVideoError)
        raise
    finally:
        if sound:
            _OPEN[place] = reader, opened
            _close_oldest()
        else:
            opened.close()


def _close_oldest() -> None:
    for place in list(_OPEN)[:-_KEPT_OPEN]:
        _, opened = _OPEN.pop(place)
        if place[0] == os.getpid():  # what another process opened before a fork is its own
            opened.close()


def _open_often(
    reopen: Callable[[], AbstractContextManager[OpenVideo]], index: FrameIndex | None
) -> tuple[VideoReader, ExitStack]:
    """A reader that stays open, and what closes it. Some demuxers find places in a file only if they saw it before."""
    with ExitStack() as opened:
        reader = VideoReader(opened.enter_context(reopen()), reopen, index, often=True)
        opened.callback(reader.close)
        return reader, opened.pop_all()


_REMEMBERED, _KEPT_OPEN = 4, 2
_INDICES: dict[tuple[object, ...], FrameIndex] = {}  # of this process, the last used at the end
_OPEN: dict[tuple[object, ...], tuple[VideoReader, ExitStack]] = {}  # likewise, with the number of the process


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
        limits: limits on the cost of a file.

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
        limits: limits on the cost of a file.

    Raises:
        VideoError: The file is refused by :func:`rbft.video.container.open_video`.
    """
    with one_video(), open_video(path, root, limits) as video:
        run = DecodingRun(video.stream.codec_context, skip=False)
        places = [(order, position) for _, order, position in decode_all(video, run)]
        return sum(run.damage_to(*place) is None for place in places)
