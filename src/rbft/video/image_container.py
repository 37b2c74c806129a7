"""A folder of numbered images in the place of a container: its images are handed to the decoder as packets."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from rbft.errors import VideoError
from rbft.video.image_sequence import images_of

_MOST_BYTES = 256 * 2**20  # of one image
_HEAD_BYTES = 16


_CODECS = {"JPEG": "mjpeg", "PNG": "png", "BMP": "bmp", "TIFF": "tiff", "WebP": "webp"}


def _kind_of(head: bytes) -> str | None:
    """What an image is, by its first bytes; None if it is nothing that is known."""
    kinds = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    for begin, kind in kinds.items():
        if head.startswith(begin):
            return kind
    return "WebP" if head.startswith(b"RIFF") and head[8:12] == b"WEBP" else None


# What is neither a byte of data, a mark to begin anew with (D0 to D7) nor filling (ITU-T T.81, B.1.1)
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_ALONE, _END = b"\x01\xd8", b"\xd9"  # markers without a length after them: for private use and of the start; the end
_COMPRESSION, _JPEG_IN_TIFF = 259, (6, 7)


def _is_cut(jpeg: bytes) -> bool:
    """Whether a JPEG lacks its end. The decoder makes up what is missing of the last rows, or of the last scans."""
    place = 0
    while (marker := _MARKER.search(jpeg, place)) is not None:
        if marker[1] == _END:
            return False
        place = marker.end()
        if marker[1] not in _ALONE:
            place += int.from_bytes(jpeg[place : place + 2])
    return True


def _holds_jpeg(tiff: bytes) -> bool:
    """Whether the first picture of a TIFF is coded as JPEG (TIFF 6.0, section 2 and the supplement 2)."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, place)
        tags = [struct.unpack_from(f"{order}HHIH", tiff, place + 2 + 12 * number) for number in range(count)]
    except struct.error:
        return False  # the decoder says what is wrong
    return any(tag == _COMPRESSION and value in _JPEG_IN_TIFF for tag, _, _, value in tags)


@dataclass
class ImageStream:
    """What is asked of a video stream, of a sequence of images."""

    codec_context: VideoCodecContext
    time_base: Fraction
    average_rate: Fraction
    frames: int
    index: int = 0

    @property
    def guessed_rate(self) -> Fraction:
        """Frames per second."""
        return self.average_rate

    @property
    def duration(self) -> int:
        """In units of `time_base`."""
        return self.frames


class ImageContainer:
    """What is asked of a container, of a folder of numbered images.

    Args:
        path: the folder, as it was named, for messages.
        folder: the folder.
        rate: frames per second.
        root: the folder that the images have to lie in; None: `folder` itself.
        max_pixels: most pixels of an image.

    Raises:
        VideoError: The images are no sequence, or the first is none that can be decoded.
    """

    format = SimpleNamespace(name="images")

    def __init__(self, path: str | Path, folder: Path, rate: Fraction, root: Path | None, max_pixels: int) -> None:
        try:
            self.images = images_of(folder, root)
            self.sizes = [image.stat().st_size for image in self.images]
            with self.images[0].open("rb") as opened:
                kind = _kind_of(opened.read(_HEAD_BYTES))
        except VideoError as error:
            raise VideoError(path, error.reason) from error
        except OSError as error:
            raise VideoError(path, f"cannot be read: {error}") from error
        if kind is None:
            raise VideoError(path, f"its image {self.images[0].name} is neither JPEG, PNG, WebP, BMP nor TIFF")
        self._path, self._kind = path, kind
        for image, size in zip(self.images, self.sizes, strict=True):
            self._require_size(image, size)
        context = av.CodecContext.create(_CODECS[kind], "r")
        assert isinstance(context, VideoCodecContext)
        context.options = {"max_pixels": str(max_pixels)}
        context.thread_count = 1
        self.stream = ImageStream(context, 1 / rate, rate, len(self.images))
        self.streams = [self.stream]
        self._next = 0

    def seek(self, position: int, *, stream: object = None) -> None:
        """Go on with the image of this number."""
        self._next = position
        if self.stream.codec_context.is_open:
            self.stream.codec_context.flush_buffers()

    def _require_size(self, image: Path, size: int) -> None:
        # one without bytes would tell the decoder that the video ends
        if size == 0:
            raise VideoError(self._path, f"its image {image.name} is empty (0 bytes)")
        if size > _MOST_BYTES:
            raise VideoError(
                self._path, f"its image {image.name} has {size:,} bytes, over the limit of {_MOST_BYTES:,}"
            )

    def demux(self, *_: object) -> Iterator[Packet]:
        """The images that are left, one a packet.

        Raises:
            VideoError: An image cannot be read any more, is of another kind than the first, is cut short, or is coded
                in a way that is decoded wrongly.
        """
        for number in range(self._next, len(self.images)):
            self._next = number + 1
            image = self.images[number]
            try:
                content = image.read_bytes()
            except OSError as error:
                raise VideoError(self._path, f"its image {image.name} cannot be read: {error}") from error
            self._require_size(image, len(content))
            if (kind := _kind_of(content[:_HEAD_BYTES])) not in (self._kind, None):
                raise VideoError(
                    self._path,
                    f"its image {image.name} is {kind} by its content and the first one is {self._kind}; save all "
                    "of them as one kind",
                )
            if self._kind == "JPEG" and kind is not None and _is_cut(content):
                raise VideoError(self._path, f"its image {image.name} is cut short: the end of the JPEG is missing")
            if self._kind == "TIFF" and kind is not None and _holds_jpeg(content):
                raise VideoError(
                    self._path,
                    f"its image {image.name} is a TIFF that holds a JPEG, whose colours would come out wrong; save it "
                    "as .jpg or .png",
                )
            packet = Packet(content)
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.time_base = self.stream.time_base
            packet.is_keyframe = True
            yield packet
