"""Which frames a video shows and when, learned by demuxing. Only what that leaves open is decoded for its times."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
from av.stream import Stream

from rbft.errors import VideoError
from rbft.video.container import COUNTING_CONTAINERS, MEDIA_ERRORS, OpenVideo, brief, resolve_inside
from rbft.video.decoding import DecodingRun, decode_all
from rbft.video.file_end import missing_end
from rbft.video.image_container import ImageContainer
from rbft.video.promise import duration_tag, promise_of
from rbft.video.sampling import Timeline

# avi numbers packets in decoding order. That is the order of display in these, as long as they have no B-frames.
_AVI_IN_ORDER = frozenset({"mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "mjpeg"})
# An mpeg4 picture this small may be the mark "nothing changed", for which decoders display nothing.
_EMPTY_VOP_BYTES = 16
# May store the two fields of a picture as two packets, so that packets cannot be counted as frames.
_FIELD_CODED = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "vc1", "wmv3"})
_UNKNOWN_OR_PROGRESSIVE = (0, 1)  # AVFieldOrder
_LOOKED_AT = 48  # frames, of a video that says it has B-frames and whose times say it has none
_NO_TIME = int(np.iinfo(np.int64).min)


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of a video in order of display.

    Args:
        num_frames: Frames that the packets of the file hold, or that decoding displays where it was needed for times.
        num_packets: Packets that hold a frame.
        declared_frames: Frames the header promises, 0 when it does not say.
        timed: Whether time stamps identify frames. If not (raw streams, avi with B-frames, doubtful time stamps), the
            i-th frame is the i-th one that decoding from the start displays, `sizes` and `keyframes` are empty, and
            `num_frames` may be more than what is displayed.
        pts: Presentation time stamps in units of `time_base`, ascending, int64 (num_frames,). Empty where the header's
            rate tells all times: in untimed videos without time stamps, or with those of that rate.
        sizes: Bytes of the packets of these frames, by which a packet is known again after seeking, where some
            demuxers guess its time stamp anew; int64 (num_frames,).
        keyframes: Rows (presentation time stamp, time stamp to seek to, bytes) of the packets that decoding can
            start at, ascending, int64 (K, 3).
        time_base: Seconds per unit.
        fps: Average frames per second; where there is no `pts` what the header says, 0.0 when it says nothing.
        duration: Seconds from the first frame to the end of the last, 0.0 when unknown.
        steady: whether frames come at one rate: none appears more than half a frame's time away from an even grid, and
            the last is not shown for longer than one and a half.
        loss: What the header promises and the file does not hold, as a clause; None if nothing is missing.
        intact: Seconds from the first frame up to which every frame is there, whatever is missing after; 0.0 where
            that cannot be told.
        misnamed: whether time stamps that are each there once name other frames than those that they are of.
    """

    num_frames: int
    num_packets: int
    declared_frames: int
    timed: bool
    pts: np.ndarray
    sizes: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    fps: float
    duration: float
    steady: bool
    loss: str | None
    intact: float
    misnamed: bool = False

    @property
    def retimed(self) -> bool:
        """Whether its times, and so the frames of a clip, are others than before `rbft.video.clip_entry.READING` 2."""
        held = not self.steady and _steady(self.pts)
        return self.misnamed or (len(self.pts) > 0 and (held or not self.timed))

    def timestamp(self, index: int) -> float:
        """Seconds from the first displayed frame to frame `index`; i / fps in a video without `pts`."""
        if len(self.pts):
            return float(int(self.pts[index] - self.pts[0]) * self.time_base)
        return index / self.fps if self.fps else 0.0

    def timeline(self, first: int, end: int, part: tuple[float, float] | None = None) -> Timeline:
        """When frames `first` to before `end` are shown.

        Args:
            first: number of the first frame.
            end: number after the last frame.
            part: start and end in seconds of the part of the video that shows them; None for all of it.
        """
        count = end - first
        if self.steady:
            return Timeline(count, count / self.fps if self.fps else 0.0)
        start, stop = (0.0, self.duration) if part is None else (part[0], min(part[1], self.duration))
        appear = (self.pts[first:end] - self.pts[0]) * float(self.time_base) - start
        return Timeline(count, stop - start, np.maximum(appear, 0.0))

    def span(self, start: float, end: float) -> tuple[int, int]:
        """The frames that a part of the video shows, in seconds: the first, and after the last.

        They are those that appear from `start` on and before `end`. The one that stands there at `start` already is
        among them where no other appears, and where frames do not come at one rate; none is after the video's end.

        Raises:
            ValueError: The video has no time stamps and its frame rate is unknown.
        """
        if not len(self.pts) and not self.fps:
            raise ValueError("does not say its frame rate, which a part of it needs")
        # a frame is at its time, however the seconds were rounded
        edges = np.array([start, end]) - 1e-6
        if len(self.pts):
            first, last = np.searchsorted((self.pts - self.pts[0]) * float(self.time_base), edges)
        else:
            first, last = np.ceil(edges * self.fps)
        begin, after = (min(max(int(place), 0), self.num_frames) for place in (first, last))
        late = begin == self.num_frames or self.timestamp(begin) > start + 1e-6
        if begin and late and start < self.duration and (begin == after or not self.steady):
            begin -= 1
        return begin, after


class _Packets(NamedTuple):
    """What matters of the packets of the video stream; a day of them must not fill the memory.

    Args:
        total: how many there are.
        first_key: whether the first is a key frame with a time.
        first_shown: whether the first is displayed.
        pts: presentation time stamps of those that are displayed, in order of decoding; `_NO_TIME` where there is none.
        sizes: their bytes.
        slots: of avi, which numbers the pictures in order of decoding, their numbers; else empty.
        ascending: whether no decoding time stamp is before an earlier one.
        keyframes: (presentation time stamp, decoding time stamp or `_NO_TIME`, bytes) of those that decoding can
            start at.
        last: (presentation time stamp, duration) of the displayed one that comes last.
        decoded: decoding time stamp of the one that is decoded last, `_NO_TIME` where it has none.
        end: the latest end in seconds of any packet of the file that was seen.
        stopped: the error that ended the walk through the file; empty at its end.
    """

    total: int
    first_key: bool
    first_shown: bool
    pts: np.ndarray
    sizes: np.ndarray
    slots: np.ndarray
    ascending: bool
    keyframes: list[tuple[int, int, int]]
    last: tuple[int, int]
    decoded: int
    end: float
    stopped: str


def build_index(video: OpenVideo) -> FrameIndex:
    """Demuxes a freshly opened video to its end.

    Args:
        video: The open video; afterwards it stands at its end and has to be sought or opened again.

    Raises:
        VideoError: The file holds no frame, or more than the limits allow.
    """
    if isinstance(video.container, ImageContainer):
        return _index_of_images(video.container)
    stream, limits = video.stream, video.limits
    promise = promise_of(video)
    packets = _demux(video)
    packet_count, stopped = len(packets.pts), packets.stopped
    if not packet_count:
        raise VideoError(video.path, f"holds no frame{stopped and f' ({stopped})'}")
    loss = f"cannot be read past frame {packets.total} ({stopped})" if stopped else None
    # avi counts pictures that a recorder dropped, too, and keeps numbers for them
    numbered = packets.decoded + 1 if video.container.format.name == "avi" else 0
    loss = loss or promise.broken_by(max(packets.total, numbered), packets.end)
    loss = loss or missing_end(resolve_inside(video.root, video.path), video.container.format.name)

    rate = float(stream.average_rate or stream.guessed_rate or 0)
    time_base = stream.time_base or Fraction(1)
    timed = _timed(video, packets)
    misnamed = timed and _misnamed(video, packets)
    if timed := timed and not misnamed:
        by_time = np.argsort(packets.pts)
        pts, sizes = packets.pts[by_time], packets.sizes[by_time]
        keyframes = _keyframes(video, packets)
    else:
        pts, sizes = _times_in_order(video, packets, rate * float(time_base)), np.empty(0, np.int64)
        keyframes = np.empty((0, 3), np.int64)
    count = len(pts) or packet_count
    if len(pts):
        span = float(int(pts[-1] - pts[0]) * time_base)
        rate = (count - 1) / span if span else rate
        duration = span + (float(packets.last[1] * time_base) or (1 / rate if rate else 0.0))
    else:
        duration = count / rate if rate else 0.0
    limits.check_seconds(video.path, duration)
    intact = duration
    if loss is not None:
        # What is missing would be decoded later, and nothing is displayed before it is decoded. Where pictures are
        # numbered instead of timed, one that is missing in the middle would not show.
        numbered = not timed or video.container.format.name in COUNTING_CONTAINERS or packets.decoded == _NO_TIME
        intact = 0.0 if numbered else max(0.0, float((packets.decoded - int(pts[0])) * time_base))
    return FrameIndex(
        count,
        packet_count,
        stream.frames,
        timed,
        pts,
        sizes,
        keyframes,
        time_base,
        rate,
        duration,
        _steady(pts, packets.last[1]),
        loss,
        intact,
        misnamed,
    )


def _index_of_images(container: ImageContainer) -> FrameIndex:
    """Of a folder of images, all of which are there and can be read one by one."""
    count, rate = len(container.images), float(container.stream.average_rate)
    pts, sizes = np.arange(count, dtype=np.int64), np.array(container.sizes, dtype=np.int64)
    keyframes = np.stack([pts, pts, sizes], axis=1)
    seconds = count / rate
    return FrameIndex(
        count, count, count, True, pts, sizes, keyframes, container.stream.time_base, rate, seconds, True, None, seconds
    )


def _steady(pts: np.ndarray, last: int = 0) -> bool:
    """Whether numbers tell times.

    Args:
        pts: Presentation time stamps; frames have to be close to an even grid.
        last: How long the last frame is shown, in the same units; no longer than it would be on the grid. 0: not known.
    """
    if len(pts) < 2:
        return True
    grid = np.linspace(pts[0], pts[-1], len(pts))
    step = grid[1] - grid[0]
    # several that share a time stamp are told apart no finer than by one
    rounding = 0 if (np.diff(pts) > 0).all() else 1
    close = np.abs(pts - grid).max() <= 0.500001 * step + rounding
    return bool(close and last <= 1.500001 * step + rounding)


def _times_in_order(video: OpenVideo, packets: _Packets, rate: float) -> np.ndarray:
    """When the frames of an untimed video are displayed, one after the other.

    Args:
        video: the open video.
        packets: its packets.
        rate: Frames in a unit of its time stamps, as the header says; 0.0 where it says nothing.

    Returns:
        Time stamps, ascending, int64; empty where there are none to go by, or the header's rate says the same.
    """
    nothing = np.empty(0, np.int64)
    avi = video.container.format.name == "avi"
    times = packets.slots if avi else packets.pts
    if times.min() == _NO_TIME or (not avi and video.container.format.name in COUNTING_CONTAINERS):
        return nothing
    last = packets.last[1]
    if _of_rate(np.sort(times), rate, last):
        return nothing
    if not avi and _may_hide_frames(video, packets):
        times = _displayed(video)
        if not len(times) or times.min() == _NO_TIME or (np.diff(times) < 0).any():
            return nothing
    elif not packets.ascending:  # recordings one after the other, each with a clock of its own
        return nothing
    times = np.sort(times)
    return times if times[0] < times[-1] and not _of_rate(times, rate, last) else nothing


def _of_rate(times: np.ndarray, rate: float, last: int) -> bool:
    """Whether time stamps, ascending, are those of so many frames in a unit of theirs, the last one shown so long."""
    if not rate or not _steady(times, last):
        return False
    off = abs(int(times[-1] - times[0]) - (len(times) - 1) / rate)
    return bool(off <= 0.5 / rate + 1)


def _displayed(video: OpenVideo) -> np.ndarray:
    """Time stamps of all frames in order of display, learned by decoding; `_NO_TIME` where there is none."""
    with video.again() as fresh:
        shown = decode_all(fresh, DecodingRun(fresh.stream.codec_context, skip=False))
        times = array("q", (_NO_TIME if frame.pts is None else frame.pts for frame, _, _ in shown))
    return np.frombuffer(times, np.int64)


def _demux(video: OpenVideo) -> _Packets:
    """Walks through the file."""
    video_stream = video.stream.index
    hides_frames = video.stream.codec_context.name == "vp8"
    seconds = [float(stream.time_base or 0) for stream in video.container.streams]
    numbers_pictures = video.container.format.name == "avi"
    times, sizes, slots, keyframes = array("q"), array("q"), array("q"), list[tuple[int, int, int]]()
    count, end, stopped = 0, 0.0, ""
    first_key, first_shown, ascending = False, False, True
    last, decoded = (_NO_TIME, 0), _NO_TIME
    try:
        for packet in video.packets(*_streams_to_time(video)):
            pts, duration, stream = packet.pts, packet.duration or 0, packet.stream_index
            if pts is not None:
                end = max(end, (pts + duration) * seconds[stream])
            if stream != video_stream:
                continue
            # Not displayed: what an edit list cuts off, the empty chunks by which avi repeats a picture, and the
            # reference pictures of VP8 (RFC 6386, 9.1: bit 4 is show_frame); VP9 and AV1 pack those with others.
            shown = not packet.is_discard and packet.size > 0
            if hides_frames and shown:
                shown = bool(memoryview(packet)[0] & 0x10)
            if not count:
                first_key, first_shown = packet.is_keyframe and pts is not None, shown
            count += 1
            before, decoded = decoded, _NO_TIME if packet.dts is None else packet.dts
            ascending &= decoded == _NO_TIME or before <= decoded
            if shown:
                if numbers_pictures:
                    slots.append(decoded)
                times.append(_NO_TIME if pts is None else pts)
                sizes.append(packet.size)
                last = max(last, (times[-1], duration))
            if packet.is_keyframe and pts is not None:
                keyframes.append((pts, _NO_TIME if packet.dts is None else packet.dts, packet.size))
            video.limits.check_frames(video.path, count)
    except MEDIA_ERRORS as error:
        stopped = brief(error)
    shown_at, bytes_each, numbers = (np.frombuffer(values, np.int64) for values in (times, sizes, slots))
    return _Packets(
        count, first_key, first_shown, shown_at, bytes_each, numbers, ascending, keyframes, last, decoded, end, stopped
    )


def _timed(video: OpenVideo, packets: _Packets) -> bool:
    """Whether time stamps name the displayed frames one by one."""
    codec, times = video.stream.codec_context, packets.pts
    # some are missing (raw streams have none) or repeated
    if times.min() == _NO_TIME or len(np.unique(times)) != len(times):
        return False
    if video.container.format.name == "avi" and (codec.name not in _AVI_IN_ORDER or codec.has_b_frames):
        return False
    return not _may_hide_frames(video, packets)


def _misnamed(video: OpenVideo, packets: _Packets) -> bool:
    """Whether packets have the times of other frames: those at which they are decoded, where B-frames are reordered.

    asf states no others, and tools that copy raw streams into another container write no others. It shows when some
    frames are decoded, which come in order of display; where no picture is reordered, nothing is wrong.
    """
    if not video.stream.codec_context.has_b_frames or (np.diff(packets.pts) < 0).any():
        return False
    with video.again() as fresh:
        shown = islice(decode_all(fresh, DecodingRun(fresh.stream.codec_context, skip=False)), _LOOKED_AT)
        times = [frame.pts for frame, _, _ in shown if frame.pts is not None]
    return any(later < earlier for earlier, later in pairwise(times))


def _may_hide_frames(video: OpenVideo, packets: _Packets) -> bool:
    """Whether decoding may display fewer frames than there are packets that hold one."""
    codec = video.stream.codec_context
    if codec.name in _FIELD_CODED and codec.field_order not in _UNKNOWN_OR_PROGRESSIVE:
        return True
    if codec.name == "mpeg4" and packets.sizes.min() <= _EMPTY_VOP_BYTES:
        return True
    # A video cut in the middle of a group starts with frames that refer to what is gone; decoders drop some of them.
    return not packets.first_key or (packets.first_shown and bool(packets.pts[0] != packets.pts.min()))


def _keyframes(video: OpenVideo, packets: _Packets) -> np.ndarray:
    """Rows (presentation time stamp, time stamp to seek to, bytes) of the packets that decoding can start at."""
    seeks_by_pts = "matroska" in video.container.format.name
    rows = [(pts, pts if seeks_by_pts or dts == _NO_TIME else dts, size) for pts, dts, size in packets.keyframes]
    return np.array(sorted(rows), dtype=np.int64)


def _streams_to_time(video: OpenVideo) -> tuple[Stream, ...]:
    """The video stream; all streams when only the duration of the whole file says how much there should be."""
    if video.stream.frames or video.stream.duration or duration_tag(video.stream):
        return (video.stream,)
    return tuple(video.container.streams)
