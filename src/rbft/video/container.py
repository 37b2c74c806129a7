"""Opening a video file safely: the one place of the package that hands a path to the media library."""

from __future__ import annotations

import math
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from rbft.errors import VideoError
from rbft.video.image_container import ImageContainer
from rbft.video.image_sequence import is_sequence, sequence_name, split_rate
from rbft.video.mp4_tables import excess
from rbft.video.orientation import Orientation

# Demuxers that read exactly the one file they are given. Playlists and scripts (hls, dash, concat, image2, ...)
# would open other files or the network on behalf of whoever wrote the "video", so everything else stays out.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,flv,asf,ogg,gif,h264,hevc"
FORMAT_NAMES = "mp4/mov, avi, mkv/webm, mpeg ts/ps, flv, wmv/asf, ogg, gif, raw h264/hevc"

COUNTING_CONTAINERS = frozenset({"avi", "h264", "hevc"})
"""Containers that number their pictures instead of timing them."""

_HEAD_BYTES = 256  # enough to know an mp4, and to tell what a file that is no video is instead

# What the media library raises on damaged input beside its own errors: ValueError includes UnicodeDecodeError
# (text fields), and times or rates outside of any range overflow.
MEDIA_ERRORS = (av.FFmpegError, ValueError, OverflowError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """What a single video may cost; a file beyond a limit is refused before its frames are decoded.

    Args:
        max_pixels: Width times height of a frame. 16 Mi pixels is 4096x4096, above 4K cinema; a half-megabyte file
            can otherwise ask for a gigabyte.
        max_seconds: Duration. An hour; clips for classification last seconds.
        max_frames: Frames in the file. An hour at 60 frames per second.
    """

    max_pixels: int = 16_777_216
    max_seconds: float = 3600.0
    max_frames: int = 216_000

    def check_seconds(self, path: object, seconds: float) -> None:
        """Refuse a video that lasts too long.

        Raises:
            VideoError: A limit is exceeded; says by how much, and what to do.
        """
        if seconds > self.max_seconds:
            raise VideoError(path, f"lasts {seconds:.0f} s, over the limit of {self.max_seconds:g} s; {_TOO_LONG}")

    def check_frames(self, path: object, frames: int) -> None:
        """Refuse a video of too many frames.

        Raises:
            VideoError: A limit is exceeded; says which, and what to do.
        """
        if frames > self.max_frames:
            raise VideoError(path, f"has {frames} frames or more, over the limit of {self.max_frames}; {_TOO_LONG}")


_TOO_LONG = "look at it with `rbft predict --window SECONDS`, cut it into clips, or raise data.max_seconds"
DEFAULT_LIMITS = Limits()
PART_LIMITS = Limits(max_seconds=7 * 86_400.0, max_frames=20_000_000)
"""Of a video of which parts are read: a week. What grows with its length is its index, 16 bytes a frame."""


class SlowVideoError(VideoError):
    """A video, or a part of it, takes longer to read than is allowed here."""


_seconds: ContextVar[float] = ContextVar("seconds", default=math.inf)
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def reading_within(seconds: float) -> Iterator[None]:
    """Refuse, inside of the block, videos that take longer than so many seconds to read."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def limit_reading(seconds: float) -> None:
    """As `reading_within`, for a process that decodes."""
    _seconds.set(seconds)


def reading_limit() -> float:
    """Seconds that a video may take to read here; infinite without a limit."""
    return _seconds.get()


@contextmanager
def one_video() -> Iterator[None]:
    """Inside of the block one video, or a part of it, is read, however often it is opened: its time begins now."""
    token = _deadline.set(time.monotonic() + _seconds.get())
    try:
        yield
    finally:
        _deadline.reset(token)


@dataclass(frozen=True)
class VideoInfo:
    """What the header and the first frame say about a video.

    Args:
        path: The file, as it was named.
        container: Name of the demuxer ("mov,mp4,m4a,3gp,3g2,mj2").
        codec: Name of the codec ("h264").
        width: Width in pixels as displayed, that is as it is turned for display.
        height: Height in pixels as displayed.
        fps: Average frames per second, 0.0 when unknown.
        declared_frames: Frames the header promises, 0 when it does not say.
        duration: Seconds, 0.0 when unknown.
        start: Time stamp of the first frame in seconds, 0.0 where the container counts frames instead (avi, raw).
        orientation: how the stored picture is laid out for display.
    """

    path: str
    container: str
    codec: str
    width: int
    height: int
    fps: float
    declared_frames: int
    duration: float
    start: float
    orientation: Orientation


@dataclass(frozen=True)
class OpenVideo:
    """An open container, or folder of numbered images, and the stream to read from it.

    Args:
        path: The file, as it was named (for messages).
        container: The demuxer; valid inside the `with` block of :func:`open_video` only.
        stream: The first video stream that is no cover picture; its decoder uses one thread.
        limits: limits on the cost of a file.
        root: The folder the file has to lie in; None for no such bound.
    """

    path: str
    container: InputContainer
    stream: VideoStream
    limits: Limits
    root: Path | None = None

    def again(self) -> AbstractContextManager[OpenVideo]:
        """The same video, opened once more."""
        return open_video(self.path, self.root, self.limits)

    def packets(self, *streams: Stream) -> Iterator[Packet]:
        """The packets of the video stream, or of `streams`, from where the container stands to the end of the file.

        Raises:
            MEDIA_ERRORS: The file cannot be read on.
            SlowVideoError: Its time is over.
        """
        packets = self.container.demux(streams or self.stream)
        while True:
            if time.monotonic() > _deadline.get():
                raise SlowVideoError(
                    self.path,
                    f"takes longer than {_seconds.get():g} s to read; cut it into clips, or allow more time "
                    "(--time-limit)",
                )
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # IndexError: the library stumbles at the end of a file in which a stream turned up on the way.
                return
            if packet.size or packet.pts is not None or packet.dts is not None:  # not one that only flushes a decoder
                yield packet


def resolve_inside(root: Path | None, path: str | Path) -> Path:
    """The regular file that `path` names, or the folder of images, with links followed, if it lies in `root`.

    Args:
        root: The folder that holds the data. None: the person named this very file, wherever it is.
        path: A file, absolute or relative to `root`. Always taken as a file name: "concat:a|b", "http://..." and the
            like have no special meaning, and a name may begin with "-". A folder of numbered images is named with its
            frame rate, see `rbft.video.image_sequence.sequence_name`.

    Returns:
        The absolute path of an existing regular file, or of an existing folder of images with its frame rate.

    Raises:
        VideoError: It lies outside, does not exist or is not a regular file.
    """
    name = str(path)
    if not name:
        raise VideoError("(empty path)", "names no file")
    if "\0" in name:
        raise VideoError(repr(name), "contains a NUL character")
    folder, rate = split_rate(name)
    try:
        base = Path(root or "").resolve(strict=True)
        # a file may be called like that
        named = name if rate is None or (base / name).is_file() else folder
        target = (base / named).resolve(strict=True)
        mode = target.stat().st_mode
    except FileNotFoundError as error:
        hint = "; it is read as a file name, never as a URL" if ":" in name else ""
        raise VideoError(name, f"no such file (looked for {error.filename}){hint}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, up to Python 3.12
        raise VideoError(name, f"cannot be reached: {error}") from error
    if root is not None and not target.is_relative_to(base):
        raise VideoError(name, f"leads to {target}, outside of the data folder {base}")
    if stat.S_ISDIR(mode):
        if rate is not None:
            return Path(sequence_name(str(target), float(rate)))
        hint = "; it holds numbered images: say their frame rate (docs/videos.md)" if is_sequence(target) else ""
        raise VideoError(name, f"is a folder, not a file{hint}")
    if not stat.S_ISREG(mode):  # a pipe or a device would block or never end
        raise VideoError(name, "is not a regular file")
    return target


@contextmanager
def open_video(path: str | Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> Iterator[OpenVideo]:
    """Opens a video for reading and closes it at the end of the `with` block.

    The media library is given an absolute file name, the file protocol, the formats of `FORMATS` and one thread, and
    nothing else. An open video must not be carried across a fork.

    Args:
        path: The video, absolute or relative to `root`.
        root: The folder the file has to lie in, links followed. None: the person named this very file, wherever it is.
        limits: limits on the cost of a file.

    Raises:
        VideoError: The file is missing, empty, outside of `root`, not a video of an accepted format, damaged at its
            head, without a decodable video stream, or over a limit.
    """
    file = resolve_inside(root, path)
    folder, rate = split_rate(str(file))
    if rate is not None and not file.is_file():
        images = ImageContainer(path, Path(folder), rate, root, limits.max_pixels)
        # they have all that is asked of a container and a stream
        container, stream = cast(InputContainer, images), cast(VideoStream, images.stream)
        limits.check_seconds(path, float(len(images.images) / rate))
        limits.check_frames(path, len(images.images))
        yield OpenVideo(str(path), container, stream, limits, root)
        return
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    if not head:
        raise VideoError(path, "is empty (0 bytes)")
    if too_much := excess(file):
        raise VideoError(path, too_much)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "max_pixels": str(limits.max_pixels),
    }
    if _is_mp4(head):
        # Opening decodes the first frames to learn how far B-frames are displaced, up to a tenth of the time a clip
        # takes. The table of an mp4 says so by itself (other containers would lose frames by this).
        options["skip_frame"] = "all"
    try:
        container = av.open(f"file:{file}", mode="r", options=options, metadata_errors="replace")
    except MEDIA_ERRORS as error:
        raise VideoError(path, _why_not_opened(head, error)) from error
    with container:
        stream = _video_stream(path, container)
        _within(limits, path, container, stream)
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
        stream.codec_context.thread_count = 1
        yield OpenVideo(str(path), container, stream, limits, root)


def probe(path: str | Path, root: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Reads the header and decodes the first frame, which alone carries the display matrix.

    Args:
        path: The video, absolute or relative to `root`.
        root: The folder the file has to lie in; None for no such bound.
        limits: limits on the cost of a file.

    Raises:
        VideoError: As :func:`open_video`, or not even one frame decodes.
    """
    with open_video(path, root, limits) as video:
        stream = video.stream
        decoder = stream.codec_context
        try:
            first = next((frame for packet in chain(video.packets(), [None]) for frame in decoder.decode(packet)), None)
        except MEDIA_ERRORS as error:
            raise VideoError(path, f"its first frame does not decode ({brief(error)})") from error
        if first is None:
            raise VideoError(path, "holds no frame that decodes")
        orientation = Orientation.of(first)
        height, width = orientation.displayed(first.height, first.width)
        container = video.container.format.name
        return VideoInfo(
            path=str(path),
            container=container,
            codec=decoder.name,
            width=width,
            height=height,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            declared_frames=stream.frames,
            duration=header_seconds(video.container, stream),
            start=0.0 if container in COUNTING_CONTAINERS else float((first.pts or 0) * (stream.time_base or 0)),
            orientation=orientation,
        )


def brief(error: Exception) -> str:
    """What a media error says, without its number and the name of the function in the library."""
    return str(getattr(error, "strerror", None) or error)


def header_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Duration in seconds by the header: of the video stream if it says so, else of the file; 0.0 when unknown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    """The first video stream that is not a still picture attached to the file."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join("still picture" if s.type == "video" else s.type for s in container.streams) or "nothing"
        raise VideoError(path, f"has no video stream (it holds: {kinds})")
    if streams[0].codec_context is None:
        raise VideoError(path, "its video stream is coded in a way this build of the media library cannot decode")
    return streams[0]


def _within(limits: Limits, path: str | Path, container: InputContainer, stream: VideoStream) -> None:
    """Refuses a video whose header already breaks a limit."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_pixels:
        raise VideoError(path, f"has frames of {width}x{height}, over the limit of {limits.max_pixels} pixels")
    limits.check_seconds(path, header_seconds(container, stream))
    limits.check_frames(path, stream.frames)


def _is_mp4(head: bytes) -> bool:
    """Whether a file begins like an mp4 or mov (ISO/IEC 14496-12: the first box states the file type)."""
    return head[4:8] == b"ftyp"


def _why_not_opened(head: bytes, error: Exception) -> str:
    """A reason a person can act on, from the first bytes of a file that the media library refused."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the video; run `git lfs pull` in the data set"
    if head.isascii() and all(character.isprintable() or character.isspace() for character in head.decode("ascii")):
        # the kind alone: what stands in a file that is no video is nobody's business
        kind = "a web page (HTML), not the video behind it" if b"<html" in head.lower() else "text, not a video"
        return f"is {kind}"
    if _is_mp4(head):
        return "is an incomplete mp4: its index is missing or damaged; the download or recording was cut short"
    return f"is not a readable video in an accepted format ({FORMAT_NAMES}): {brief(error)}"
