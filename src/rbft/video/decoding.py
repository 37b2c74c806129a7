"""One run of a decoder, from a point where decoding can start, that knows which frames came out damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from rbft.video.container import MEDIA_ERRORS, OpenVideo, brief

# Their decoders drop pictures that no other picture refers to without a trace in the rest. (Those of VP8 and VP9
# carry state from picture to picture that is not pixels.)
_SKIPPING_IS_EXACT = frozenset({"h264", "mpeg4", "mpeg2video"})

_REORDERED = 17  # frames displayed between one and any that was decoded before it; H.264 and HEVC keep 16 back


class Shown(NamedTuple):
    """A frame as it is displayed.

    Args:
        frame: The decoded frame.
        order: number of frames that the run displayed before it.
        position: number of packets that the run was given before the one that holds the frame.
    """

    frame: VideoFrame
    order: int
    position: int


class DecodingRun:
    """Feeds packets to a decoder and keeps account of errors, which spread until the next key frame.

    An error is what the container or the decoder reports. Damage that happens to be valid coding shows as a wrong
    picture and cannot be noticed, as pictures carry no checksums.

    Args:
        decoder: A decoder at its start or just flushed by seeking; its flags and frame skipping are changed.
        skip: Whether to leave out the pictures that are neither wanted nor needed by others, where that changes
            nothing in the rest.
    """

    def __init__(self, decoder: VideoCodecContext, skip: bool) -> None:
        self._decoder = decoder
        self._skip = skip and _can_skip(decoder)
        self._sent = 0
        self._finished = False
        self._keys: list[tuple[int, int]] = []  # (order, position) of displayed key frames
        self._shown = 0
        self._damage: list[tuple[int, str]] = []  # (position, what happened)
        decoder.flags |= Flags.copy_opaque
        decoder.skip_frame = "DEFAULT"

    def feed(self, packet: Packet, wanted: bool = True) -> list[Shown]:
        """Decodes a packet.

        Args:
            packet: The next one of the video stream.
            wanted: Whether its frame is. If not, the frame may be missing from the results.

        Returns:
            The frames that can be displayed now, in order.
        """
        # The decoder hands the packet's mark on to its frame, which ties the two whatever the time stamps say. The
        # mark is a new tuple because the library tells marks apart by identity.
        packet.opaque = (self._sent,)
        if packet.is_corrupt:
            self._damage.append((self._sent, "the container marks its data as incomplete"))
        if self._skip:
            self._decoder.skip_frame = "DEFAULT" if wanted else "NONREF"
        self._sent += 1
        return self._decode(packet)

    def finish(self) -> list[Shown]:
        """The frames still inside the decoder; it needs seeking before another run. None the second time."""
        if self._finished:
            return []
        self._finished = True
        return self._decode(None)

    def damage_to(self, order: int, position: int) -> str | None:
        """What makes a displayed frame untrustworthy, or None; final once the run is finished.

        An error harms its own picture and whatever is decoded later, up to a key frame that is displayed no later
        than the frame in question (pictures displayed before a key frame may refer to what came before it).

        Args:
            order: As in :class:`Shown`.
            position: As in :class:`Shown`.
        """
        if not self._damage:
            return None
        healed = max((key for key_order, key in self._keys if key <= position and key_order <= order), default=0)
        return next((what for source, what in self._damage if healed <= source <= position), None)

    @property
    def displayed(self) -> int:
        """How many frames came out."""
        return self._shown

    def first_damage(self) -> str | None:
        """The first error of the run, or None."""
        return self._damage[0][1] if self._damage else None

    def _decode(self, packet: Packet | None) -> list[Shown]:
        try:
            frames = self._decoder.decode(packet)
        except MEDIA_ERRORS as error:
            self._damage.append((self._sent - 1, f"it does not decode ({brief(error)})"))
            return []
        results = []
        for frame in frames:
            mark = frame.opaque
            position = mark[0] if isinstance(mark, tuple) else self._sent - 1
            if frame.is_corrupt:
                self._damage.append((position, "its data is damaged and the decoder had to guess"))
            if frame.key_frame:
                self._keys.append((self._shown, position))
            results.append(Shown(frame, self._shown, position))
            self._shown += 1
        return results


class ForwardPass:
    """Decodes a video from its start, and goes on where it stopped: parts one after the other cost one pass.

    Args:
        video: the video, freshly opened.
        timed: whether frames are named by their time stamps; else by their places in the order of display.
    """

    def __init__(self, video: OpenVideo, timed: bool) -> None:
        self.run = DecodingRun(video.stream.codec_context, skip=False)
        self._frames, self._timed = decode_all(video, self.run), timed
        self._ahead: deque[Shown] = deque()
        self._passed: int | None = None

    def __iter__(self) -> Iterator[tuple[int | None, Shown]]:
        """The frames that are left, each with its name."""
        while True:
            shown = self._ahead.popleft() if self._ahead else next(self._frames, None)
            if shown is None:
                return
            name = shown.frame.pts if self._timed else shown.order
            self._passed = self._passed if name is None else name
            yield name, shown

    def is_before(self, name: int) -> bool:
        """Whether the frame of this name is still to come."""
        return self._passed is None or self._passed < name

    def look_ahead(self) -> None:
        """Decode as far as errors can be that harm a frame that was given out; the frames come out all the same."""
        while len(self._ahead) < _REORDERED and (shown := next(self._frames, None)) is not None:
            self._ahead.append(shown)


def _can_skip(decoder: VideoCodecContext) -> bool:
    """Whether leaving out non-reference pictures is exact for this stream.

    HEVC marks pictures as unreferenced within their temporal layer only, so it takes a single layer, by
    numTemporalLayers of the configuration record (ISO/IEC 14496-15, 8.3.3.1): bits 3 to 5 of byte 21.
    """
    if decoder.name == "hevc":
        record = decoder.extradata or b""
        return len(record) > 22 and record[0] == 1 and record[21] >> 3 & 7 == 1
    return decoder.name in _SKIPPING_IS_EXACT


def decode_all(video: OpenVideo, run: DecodingRun) -> Iterator[Shown]:
    """Every frame that a freshly opened video displays, up to where it cannot be read on."""
    packets = video.packets()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except MEDIA_ERRORS:
            break  # unreadable from here on: as if the file ended, which callers compare with what was promised
        yield from run.feed(packet)
    yield from run.finish()
