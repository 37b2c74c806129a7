"""What the header of a video promises to hold, by which a file that was cut short is known."""

from __future__ import annotations

import re
from typing import NamedTuple

from av.stream import Stream

from rbft.video.container import OpenVideo, header_seconds

# Recorders round the length they write; real cuts lose more than this.
_TOLERATED_FRAMES = 1
_TOLERATED_SECONDS = 0.2
_TOLERATED_SHARE = 0.01  # of the seconds
# Demuxers that know no duration but the one that they guess from time stamps near both ends of the file, of any stream.
_WITHOUT_DURATION = frozenset({"mpegts", "mpeg"})


class Promise(NamedTuple):
    """What a header says the file holds, in packets or seconds of the video stream or both; 0 where it says nothing.

    Half of an avi, mkv or web-ready mp4 decodes without any error: comparing is the only way to tell.
    """

    packets: int
    tolerated: int
    seconds: float

    def broken_by(self, packets: int, end: float) -> str | None:
        """What is missing if the file holds `packets` of the stream and ends at `end` seconds; None if nothing is."""
        if self.packets - packets > self.tolerated:
            return f"is cut short: its header declares {self.packets} frames and {packets} are there"
        if self.seconds - end > max(_TOLERATED_SECONDS, _TOLERATED_SHARE * self.seconds):
            return f"is cut short: its header declares {self.seconds:.2f} s and {end:.2f} s are there"
        return None


def promise_of(video: OpenVideo) -> Promise:
    """Reads the promise, which must be done before demuxing: some demuxers extend their tables as they go."""
    stream = video.stream
    if video.container.format.name in _WITHOUT_DURATION:
        return Promise(0, 0, 0.0)
    # A count is the better promise: durations are rounded, and may be those of another stream.
    seconds = 0.0 if stream.frames else duration_tag(stream) or header_seconds(video.container, stream)
    if "mp4" in video.container.format.name:
        # The demuxer's table, not the header's count: it holds the samples that edit lists leave.
        return Promise(len(stream.index_entries), 0, seconds)
    return Promise(stream.frames, _TOLERATED_FRAMES, seconds)


def duration_tag(stream: Stream) -> float:
    """Seconds by the DURATION tag of a Matroska track ("00:00:02.120000000"), 0.0 without one."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if not match:
        return 0.0
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
