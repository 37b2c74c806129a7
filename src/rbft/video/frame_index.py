"""Which frames a video shows and when, learned by demuxing alone (nothing is decoded)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from rbft.errors import VideoError
from rbft.video.container import MEDIA_ERRORS, OpenVideo, header_seconds

# Their demuxers number packets in decoding order, which is not the order of display once there are B-frames.
_UNTIMED_CONTAINERS = frozenset({"avi", "h264", "hevc"})
# May store the two fields of a picture as two packets, so that packets cannot be counted as frames.
_FIELD_CODED = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "vc1", "wmv3"})
_UNKNOWN_OR_PROGRESSIVE = (0, 1)  # AVFieldOrder
# Recorders round the length they write and end sound and picture apart; real cuts lose more than this.
_TOLERATED_SHARE = 0.01
_TOLERATED_FRAMES = 1
_TOLERATED_SECONDS = 0.2


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The frames of a video in order of display.

    Args:
        num_frames: Frames that the packets of the file hold.
        declared_frames: Frames the header promises, 0 when it does not say.
        timed: Whether time stamps identify frames. If not (raw streams, avi, doubtful time stamps), the i-th
            frame is the i-th one that decoding from the start displays, `pts` and `keyframes` are empty, and
            `num_frames` may be more than what decodes.
        pts: Presentation time stamps in units of `time_base`, ascending, int64 (num_frames,).
        keyframes: Rows (presentation time stamp, time stamp to seek to) of the packets that decoding can start
            at, ascending, int64 (K, 2).
        time_base: Seconds per unit.
        fps: Average frames per second; of an untimed video what the header says, 0.0 when it says nothing.
        duration: Seconds from the first frame to the end of the last, 0.0 when unknown.
        loss: What the header promises and the file does not hold, as a clause; None if nothing is missing.
    """

    num_frames: int
    declared_frames: int
    timed: bool
    pts: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    fps: float
    duration: float
    loss: str | None

    def timestamp(self, index: int) -> float:
        """Seconds from the first displayed frame to frame `index`; i / fps in an untimed video."""
        if self.timed:
            return float(int(self.pts[index] - self.pts[0]) * self.time_base)
        return index / self.fps if self.fps else 0.0


def build_index(video: OpenVideo) -> FrameIndex:
    """Demuxes a freshly opened video to its end.

    Args:
        video: The open video; afterwards it stands at its end and has to be sought or opened again.

    Raises:
        VideoError: The file holds no frame, or more than the limits allow.
    """
    stream, limits = video.stream, video.limits
    # The mp4 demuxer's own table counts the samples that edit lists leave; the header counts all of them.
    expected = len(stream.index_entries) if "mp4" in video.container.format.name else stream.frames
    shown: list[int | None] = []
    keyframes: list[tuple[int | None, int | None]] = []
    durations: dict[int | None, int] = {}
    first: Packet | None = None
    found, end, stopped = 0, 0.0, ""
    try:
        for packet in video.container.demux(_streams_to_time(video)):
            if packet.pts is not None and packet.time_base:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or is_flush(packet):
                continue
            found += 1
            if found > limits.max_frames:
                raise VideoError(video.path, f"has more than {limits.max_frames} frames; cut it into clips")
            first = first or packet
            if packet.is_keyframe:
                seekable = "matroska" in video.container.format.name or packet.dts is None
                keyframes.append((packet.pts, packet.pts if seekable else packet.dts))
            if is_shown(packet):
                shown.append(packet.pts)
                durations[packet.pts] = packet.duration or 0
    except MEDIA_ERRORS as error:
        stopped = str(error)
    if first is None or not shown:
        raise VideoError(video.path, f"holds no frame{stopped and f' ({stopped})'}")
    loss = f"cannot be read past frame {found} ({stopped})" if stopped else _loss(video, expected, found, end)

    rate = float(stream.average_rate or stream.guessed_rate or 0)
    time_base = stream.time_base or Fraction(1)
    pts = np.array(sorted(p for p in shown if p is not None), dtype=np.int64)
    timed = _timed(video, first, len(shown), pts)
    if timed:
        span = float(int(pts[-1] - pts[0]) * time_base)
        rate = (len(pts) - 1) / span if span else rate
        duration = span + (float(durations[int(pts[-1])] * time_base) or (1 / rate if rate else 0.0))
        keys = np.array(sorted(keyframes), dtype=np.int64).reshape(-1, 2)
    else:
        duration = len(shown) / rate if rate else 0.0
        pts, keys = np.empty(0, np.int64), np.empty((0, 2), np.int64)
    if duration > limits.max_seconds:
        raise VideoError(video.path, f"lasts {duration:.0f} s, over the limit of {limits.max_seconds:g} s")
    return FrameIndex(len(shown), stream.frames, timed, pts, keys, time_base, rate, duration, loss)


def is_flush(packet: Packet) -> bool:
    """Whether this is the empty packet with which demuxing ends."""
    return packet.size == 0 and packet.pts is None and packet.dts is None


def is_shown(packet: Packet) -> bool:
    """Whether decoding the packet displays a frame.

    Not so for what an edit list cuts off, and for the invisible reference frames of VP8, which have packets of their
    own (RFC 6386, section 9.1: bit 4 of the first byte is show_frame); VP9 and AV1 pack theirs with a visible one.
    """
    if packet.is_discard:
        return False
    if packet.stream.codec_context.name == "vp8" and packet.size:
        return bool(memoryview(packet)[0] & 0x10)
    return True


def _timed(video: OpenVideo, first: Packet, num_shown: int, pts: np.ndarray) -> bool:
    """Whether time stamps name the displayed frames one by one."""
    stream = video.stream
    if video.container.format.name in _UNTIMED_CONTAINERS:
        return False
    if stream.codec_context.name in _FIELD_CODED and (stream.codec_context.field_order not in _UNKNOWN_OR_PROGRESSIVE):
        return False
    if len(pts) != num_shown or len(np.unique(pts)) != num_shown:  # missing or repeated
        return False
    # A film cut in the middle of a group starts with frames that refer to what is gone; decoders drop some of them.
    return first.is_keyframe and first.pts is not None and (first.is_discard or first.pts == pts[0])


def _streams_to_time(video: OpenVideo) -> tuple[Stream, ...]:
    """The film; with everything beside it when only the duration of the whole file says how much there should be."""
    if video.stream.frames or video.stream.duration or "DURATION" in video.stream.metadata:
        return (video.stream,)
    return tuple(video.container.streams)


def _loss(video: OpenVideo, expected: int, found: int, end: float) -> str | None:
    """What the header promises beyond what was found, by frames where it counts them, else by time.

    Half of an avi, mkv or web-ready mp4 decodes without any error, so this comparison is the only sign.
    """
    if expected:
        missing = expected - found
        if missing > max(_TOLERATED_FRAMES, _TOLERATED_SHARE * expected):
            return f"is cut short: its header declares {expected} frames and {found} are there"
        return None
    promised = _duration_tag(video.stream) or header_seconds(video.container, video.stream)
    if promised - end > max(_TOLERATED_SECONDS, _TOLERATED_SHARE * promised):
        return f"is cut short: its header declares {promised:.2f} s and {end:.2f} s are there"
    return None


def _duration_tag(stream: VideoStream) -> float:
    """Seconds by the DURATION tag of a Matroska track ("00:00:02.120000000"), 0.0 without one."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds()
