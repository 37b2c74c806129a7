"""Videos for tests: frames that carry their own number, and files of any coding to hold them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from rbft.video.convert import RGBConverter

UNEVEN = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 6, 12)
"""Seconds at which a screen or a motion camera recorded: much at first, then hardly anything."""

_GRID = 4  # 4 x 4 blocks: 12 bits of number, 4 bits of checksum
_BITS = 12


def numbered_frames(num_frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 that :func:`read_number` tells apart even after lossy coding and scaling."""
    rows = np.arange(height) * _GRID // height
    columns = np.arange(width) * _GRID // width
    block = rows[:, None] * _GRID + columns[None, :]
    down, right = np.linspace(0, 30, height)[:, None], np.linspace(0, 30, width)[None, :]
    tint = np.stack(np.broadcast_arrays(down, right, 30 - down), axis=-1)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        bits = np.array([_code(number) >> i & 1 for i in range(_GRID**2)])
        frames[number] = 30 + 165 * bits[block][..., None] + tint
    return frames


def read_number(frame: np.ndarray) -> int:
    """The number of a frame of :func:`numbered_frames`, given as (H, W, 3) or (3, H, W).

    Raises:
        ValueError: The pattern is damaged (its checksum does not fit).
    """
    pixels = np.asarray(frame)
    gray = pixels.mean(axis=0 if pixels.shape[0] == 3 else 2)
    height, width = gray.shape
    code = 0
    for i in range(_GRID**2):
        row, column = divmod(i, _GRID)
        # Only the middle of a block, away from what coding and scaling do to its edges.
        middle = gray[
            (4 * row + 1) * height // 16 : max((4 * row + 3) * height // 16, (4 * row + 1) * height // 16 + 1),
            (4 * column + 1) * width // 16 : max((4 * column + 3) * width // 16, (4 * column + 1) * width // 16 + 1),
        ]
        code |= int(middle.mean() > 128) << i
    number = code & ((1 << _BITS) - 1)
    if _code(number) != code:
        raise ValueError(f"not an intact numbered frame: block code {code:016b}")
    return number


def decode_plainly(path: Path, wanted: Collection[int] | None = None) -> tuple[int, dict[int, np.ndarray]]:
    """Decodes a video from its first to its last frame in the plainest way.

    Args:
        path: The video.
        wanted: Indices in order of display of the frames to convert, None for all.

    Returns:
        The number of displayed frames, and the wanted ones as (3, H, W) uint8, converted as the reader does.
    """
    frames = {}
    count = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        convert = RGBConverter(str(path), None)
        for index, frame in enumerate(container.decode(stream)):
            count += 1
            if wanted is None or index in wanted:
                frames[index] = np.empty((3, *convert.size_for(frame)), np.uint8)
                convert.write(frame, frames[index])
    return count, frames


def _code(number: int) -> int:
    checksum = (number ^ number >> 4 ^ number >> 8 ^ 0b1010) & 0b1111
    return number & ((1 << _BITS) - 1) | checksum << _BITS


def write_video(
    path: Path,
    frames: np.ndarray | None = None,
    *,
    num_frames: int = 40,
    size: tuple[int, int] = (96, 128),
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    bframes: int = 0,
    codec_options: Mapping[str, str] | None = None,
    container: str | None = None,
    container_options: Mapping[str, str] | None = None,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    colorspace: int | None = None,
) -> Path:
    """Encodes a video with one thread, so that the same call writes the same pictures.

    Args:
        path: Where to; the suffix chooses the container unless `container` names it.
        frames: (T, H, W, 3) uint8 RGB; None for :func:`numbered_frames` of `num_frames` and `size`.
        num_frames: See `frames`.
        size: Height and width, see `frames`.
        fps: Frames per second.
        codec: Encoder.
        pix_fmt: Pixel format of the coded pictures.
        gop: Pictures from key frame to key frame.
        bframes: Most consecutive B-frames.
        codec_options: Options of the encoder.
        container: Name of the muxer.
        container_options: Options of the muxer.
        times: Display time of every frame in seconds (variable rate, late start); None for i / fps.
        rotation: Counter-clockwise degrees to write into the display matrix.
        colorspace: AVColorSpace value to tag the pictures with.

    Returns:
        `path`.
    """
    if frames is None:
        frames = numbered_frames(num_frames, *size)
    with av.open(str(path), "w", format=container, options=dict(container_options or {})) as output:
        stream = output.add_stream(codec, rate=fps, options=dict(codec_options or {}))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_gif(path: Path, durations: Sequence[int], size: tuple[int, int] = (96, 128)) -> Path:
    """Writes numbered frames, each shown for so many milliseconds."""
    first, *others = (Image.fromarray(frame) for frame in numbered_frames(len(durations), *size))
    first.save(path, save_all=True, append_images=others, duration=list(durations), loop=0)
    return path


def remux(
    source: Path,
    target: Path,
    change: Callable[[int, bytes], bytes | None] = lambda _, content: content,
    time: Callable[[int], int] = lambda stamp: stamp,
) -> Path:
    """Copies a video packet by packet.

    Args:
        source: The video.
        target: Where to; the suffix chooses the container.
        change: Gives the new bytes of packet i, or None to leave it out.
        time: Gives the new time stamp for an old one, in units of the source's stream.

    Returns:
        `target`.
    """
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for i, packet in enumerate(p for p in container.demux(stream) if p.size):
            content = change(i, bytes(packet))
            if content is None:
                continue
            new = av.Packet(content)
            new.stream, new.duration = copy, packet.duration
            new.pts, new.dts = (None if stamp is None else time(stamp) for stamp in (packet.pts, packet.dts))
            new.time_base, new.is_keyframe = packet.time_base, packet.is_keyframe
            output.mux(new)
    return target
