"""Videos for benchmarks, generated: moving texture in the codings that data sets use and in those that trap readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.stream import VideoStream

# One thread, so that every machine writes the same pictures.
_X265 = "log-level=none:pools=none:frame-threads=1"
_OPEN_GROUPS = "open-gop=1:scenecut=0"
_MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Coding:
    """How a video is written.

    Args:
        suffix: Of the file; it chooses the container.
        height: In pixels.
        width: In pixels.
        num_frames: Frames given to the encoder.
        fps: Frames per second.
        codec: Encoder.
        gop: Frames from key frame to key frame.
        bframes: Most consecutive B-frames.
        options: Of the encoder.
        bit_rate: Bits per second; 0 leaves it to the options.
        container_options: Of the muxer.
        rotation: Counter-clockwise degrees of the display matrix.
        times: "uneven" frame durations from 10 to 300 ms; "hidden" puts the first quarter before time zero, which an
            mp4 writes as an edit list that cuts it off; "late" starts after 3.2 s.
    """

    suffix: str
    height: int
    width: int
    num_frames: int
    fps: int
    codec: str = "libx264"
    gop: int = 250
    bframes: int = 3
    options: Mapping[str, str] = field(default_factory=dict)
    bit_rate: int = 0
    container_options: Mapping[str, str] = field(default_factory=dict)
    rotation: int = 0
    times: Literal["even", "uneven", "hidden", "late"] = "even"


# By which readers are timed. What stands for UCF-101 is coded as its clips are (Xvid at half a megabit per second, a
# key frame every 12 frames, no B-frames); 340x256 is the size in which Kinetics is usually kept.
TIMED: dict[str, Coding] = {
    "ucf-like avi 320x240, 7 s": Coding(".avi", 240, 320, 210, 30, "mpeg4", gop=12, bframes=0, bit_rate=480_000),
    "h264 340x256, 10 s": Coding(".mp4", 256, 340, 300, 30),
    "h264 720p, 10 s, key frame every 250": Coding(".mp4", 720, 1280, 300, 30),
    "h264 720p, 10 s, key frame every 30": Coding(".mp4", 720, 1280, 300, 30, gop=30),
    "hevc 1080p, 12 s": Coding(
        ".mp4", 1080, 1920, 300, 25, "libx265", options={"preset": "veryfast", "x265-params": _X265}
    ),
}
_SMALL = Coding(".mp4", 120, 160, 80, 25, gop=12)
AWKWARD: dict[str, Coding] = {
    "variable rate mp4": replace(_SMALL, times="uneven"),
    "variable rate mkv": replace(_SMALL, suffix=".mkv", times="uneven"),
    "late start": replace(_SMALL, times="late"),
    "edit list": replace(_SMALL, times="hidden"),
    "open gop mp4": replace(_SMALL, gop=8, options={"x264-params": _OPEN_GROUPS}),
    "open gop ts": replace(_SMALL, suffix=".ts", gop=8, options={"x264-params": _OPEN_GROUPS}),
    "open gop hevc": replace(_SMALL, codec="libx265", gop=8, options={"x265-params": f"{_X265}:{_OPEN_GROUPS}"}),
    "ts": replace(_SMALL, suffix=".ts"),
    "ts mpeg2": replace(_SMALL, suffix=".ts", codec="mpeg2video", bframes=2),
    "mkv without duration": replace(_SMALL, suffix=".mkv", container_options={"live": "1"}),
    "fragmented mp4": replace(_SMALL, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "raw h264": replace(_SMALL, suffix=".h264"),
    "raw hevc": replace(_SMALL, suffix=".hevc", codec="libx265", options={"x265-params": _X265}),
    "b-frame avi mpeg4": replace(_SMALL, suffix=".avi", codec="mpeg4", bframes=2),
    "b-frame avi h264": replace(_SMALL, suffix=".avi"),
    "webm vp9": replace(_SMALL, suffix=".webm", codec="libvpx-vp9", bframes=0),
    "rotated mov": replace(_SMALL, suffix=".mov", rotation=90),
}


def write_video(folder: Path, name: str, coding: Coding) -> Path:
    """Encodes moving texture; the same call writes the same pictures.

    Args:
        folder: Where to; the file is named after `name`.
        name: Of the case.
        coding: How.
    """
    path = folder / ("".join(c if c.isalnum() else "-" for c in name) + coding.suffix)
    with av.open(str(path), "w", options=dict(coding.container_options)) as output:
        stream = output.add_stream(coding.codec, rate=coding.fps, options=dict(coding.options))
        if not isinstance(stream, VideoStream):
            raise TypeError(f"{coding.codec} does not encode videos")
        stream.height, stream.width, stream.pix_fmt = coding.height, coding.width, "yuv420p"
        encoder = stream.codec_context
        encoder.gop_size, encoder.max_b_frames, encoder.thread_count = coding.gop, coding.bframes, 1
        if coding.bit_rate:
            encoder.bit_rate = coding.bit_rate
        if coding.rotation:
            stream.set_display_rotation(coding.rotation)
        milliseconds = _milliseconds(coding)
        if milliseconds is not None:
            encoder.time_base = _MILLISECOND
        for number, pixels in enumerate(_moving_texture(coding.num_frames, coding.height, coding.width)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], _MILLISECOND
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _milliseconds(coding: Coding) -> list[int] | None:
    """Display times where they are not those of the frame rate."""
    if coding.times == "even":
        return None
    even = [round(1000 * i / coding.fps) for i in range(coding.num_frames)]
    if coding.times == "uneven":
        return [0, *np.cumsum([(10, 20, 40, 100, 300)[i % 5] for i in range(coding.num_frames - 1)]).tolist()]
    shift = 3200 if coding.times == "late" else -even[coding.num_frames // 4]
    return [time + shift for time in even]


def _moving_texture(num_frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8: a panning background, three objects that move on their own, and sensor noise.

    Texture, motion of several objects and noise are what makes a decoder work as it does on camera footage; flat or
    still pictures would flatter every reader that decodes more than it has to.
    """
    random = np.random.default_rng(0)
    background = _texture(random, height, width)
    objects = [_texture(random, height // 2, width // 2) for _ in range(3)]
    rows, columns = np.ogrid[: height // 2, : width // 2]
    disc = (((rows - height / 4) / (height / 4)) ** 2 + ((columns - width / 4) / (width / 4)) ** 2 < 1)[..., None]
    noise = random.normal(0, 2, (8, height, width, 1))
    pace = height / 240  # pixels a frame, alike on the screen at all sizes
    for number in range(num_frames):
        frame = np.roll(background, (round(0.6 * pace * number), round(1.3 * pace * number)), (0, 1))
        for which, texture in enumerate(objects):
            phase = 2 * np.pi * (number / (90 + 25 * which) + which / 3)
            top, left = round(height / 4 * (1 + np.sin(phase))), round(width / 4 * (1 + np.cos(1.3 * phase)))
            place = frame[top : top + height // 2, left : left + width // 2]
            np.copyto(place, texture[: place.shape[0], : place.shape[1]], where=disc)
        frame = frame + np.roll(noise[number % len(noise)], 17 * number, 1)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise (H, W, 3) filtered to the 1/f spectrum of natural images, which continues over its edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width)
    spectrum = np.fft.rfft2(random.normal(size=(3, height, width))) / np.maximum(frequency, 1) ** 1.2
    picture = np.fft.irfft2(spectrum, s=(height, width))
    picture -= picture.mean(axis=(1, 2), keepdims=True)
    picture /= picture.std(axis=(1, 2), keepdims=True)
    return np.moveaxis(128 + 45 * picture, 0, 2)
