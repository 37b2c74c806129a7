"""What is true of one video file, learned by decoding it once from its first frame to its last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rbft.data.perceptual_hash import NUM_PICTURES, PICTURE_SIZE, signature
from rbft.errors import VideoError
from rbft.video.clip_prefetch import ClipPrefetch, ClipRequest
from rbft.video.container import DEFAULT_LIMITS, Limits, OpenVideo, open_video
from rbft.video.content import content_bytes, content_digest
from rbft.video.convert import RGBConverter
from rbft.video.decoding import DecodingRun, decode_all
from rbft.video.frame_index import FrameIndex, build_index
from rbft.video.orientation import Orientation
from rbft.video.sampling import FrameSampling, Timeline

Problem = Literal["missing", "empty", "unreadable", "damaged", "gave_up"]

_SAMPLING = FrameSampling(num_frames=NUM_PICTURES)
# Of the frames of a video without time stamps; `rbft.video.clip.read_clip` forgives as many.
_TOLERATED_EMPTY_PACKETS = 0.02
_SAME_SHAPE = 0.03  # of the ratio of the sides; what rounding to whole blocks does to small pictures
_BLANK = 2.0  # levels of 255; a black picture that was coded and decoded varies by less than one


@dataclass(frozen=True)
class VideoFacts:
    """One video file as it is.

    Args:
        path: The file, relative to the data root.
        problem: `missing` (or outside of the root), `empty` (no bytes), `unreadable` (no clip can be read), `damaged`
            (some frames are gone or broken, so that some clips cannot be read), `gave_up` (decoding took too long or
            brought its process down; another machine may do better), None.
        reason: The problem in words, as a clause ("is empty (0 bytes)").
        bytes: Size of the file.
        digest: Hash of its content by `rbft.video.content.content_digest`; "" where the file cannot be opened.
        declared_frames: Frames the header promises, 0 when it does not say.
        decoded_frames: Frames that decode undamaged.
        duration: Seconds, 0.0 when unknown.
        fps: Average frames per second, 0.0 when unknown.
        steady: whether frames come at one rate.
        retimed: as `rbft.video.frame_index.FrameIndex.retimed`.
        height: Height in pixels as displayed, that is as it is turned for display.
        width: Width in pixels as displayed.
        rotation: Counter-clockwise degrees by which the stored picture is turned for display: 0, 90, 180 or 270.
        mirrored: whether it is mirrored left to right before that.
        codec: Name of the codec ("h264").
        reshaped: from when on its pictures are of another shape, and which, as a clause; "" where all are of one.
        contrast: Largest standard deviation of a colour channel within a sampled picture, in levels of 255.
        signature: Perceptual hash that finds similar clips (`rbft.data.perceptual_hash`); "" for too little to see.
    """

    path: str
    problem: Problem | None = None
    reason: str | None = None
    bytes: int = 0
    digest: str = ""
    declared_frames: int = 0
    decoded_frames: int = 0
    duration: float = 0.0
    fps: float = 0.0
    steady: bool = True
    retimed: bool = False
    height: int = 0
    width: int = 0
    rotation: int = 0
    mirrored: bool = False
    codec: str = ""
    reshaped: str = ""
    contrast: float = 0.0
    signature: str = ""

    @property
    def readable(self) -> bool:
        """Whether any clip can be read from it."""
        return self.problem is None

    @property
    def blank(self) -> bool:
        """Whether every sampled picture is of one colour."""
        return self.decoded_frames > 0 and self.contrast < _BLANK

    @property
    def timeline(self) -> Timeline:
        """How many frames there are, and how long they last; not when each of them appears."""
        at_one_rate = self.decoded_frames / self.fps if self.fps else 0.0
        return Timeline(self.decoded_frames, at_one_rate if self.steady else self.duration)

    def timeline_of(self, part: tuple[float, float] | None) -> Timeline:
        """The same of a part, start and end in seconds; None for all of it. Of a changing rate it is about right."""
        whole = self.timeline
        if part is None or not whole.seconds:
            return whole
        rate = whole.num_frames / whole.seconds
        first, end = (math.ceil(min(second, whole.seconds) * rate - 1e-6) for second in part)
        return Timeline(max(1, end - first), max(1, end - first) / rate)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def inspect_video(
    path: str,
    root: Path,
    digest: str,
    time_limit: float,
    requests: Sequence[ClipRequest] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> VideoFacts:
    """Decode a whole video and say what it is.

    A file that lost its end decodes without any error, so what decodes is compared with what the file promises.

    Args:
        path: The video, relative to `root`.
        root: The data root.
        digest: digest of its content.
        time_limit: Seconds it may take; looked at between frames.
        requests: Clips that will be read from it; they are stored if nothing is wrong with the video.
        limits: what it may cost beside.
    """
    deadline = time.monotonic() + time_limit
    try:
        size = content_bytes(root / path)
    except VideoError as error:
        return VideoFacts(path, "unreadable", error.reason, 0, digest)
    if not size:
        return VideoFacts(path, "empty", "is empty (0 bytes)", 0, digest)
    try:
        with open_video(path, root, limits) as video:
            codec = video.stream.codec_context.name
            index = build_index(video)
        prefetches = [ClipPrefetch(request, path, index) for request in requests]
        decoded = _decode(partial(open_video, path, root, limits), index, deadline, prefetches)
    except _TimeUpError:
        return VideoFacts(path, "gave_up", time_up(time_limit), size, digest)
    except VideoError as error:
        return VideoFacts(path, "unreadable", error.reason, size, digest)
    whole = decoded.loss is None and decoded.undamaged == index.num_frames
    # not replaced while it was decoded
    if prefetches and whole and content_digest(root / path) == digest:
        for prefetch in prefetches:
            prefetch.keep(digest)
    pictures = np.stack(decoded.pictures)
    return VideoFacts(
        path=path,
        problem="damaged" if decoded.loss else None,
        reason=decoded.loss,
        bytes=size,
        digest=digest,
        declared_frames=index.declared_frames,
        decoded_frames=decoded.undamaged,
        duration=round(index.duration, 6),
        fps=round(index.fps, 6),
        steady=index.steady,
        retimed=index.retimed,
        height=decoded.height,
        width=decoded.width,
        rotation=decoded.orientation.rotation,
        mirrored=decoded.orientation.mirrored,
        codec=codec,
        reshaped=decoded.reshaped,
        contrast=round(float(pictures.std(axis=(2, 3)).max()), 3),
        signature=signature(pictures) if len(pictures) == NUM_PICTURES else "",
    )


def time_up(time_limit: float) -> str:
    """The reason for which a video that takes too long is refused."""
    return f"takes more than {time_limit:g} s to decode; cut it into clips"


class _TimeUpError(Exception):
    """A video took longer than it may."""


@dataclass(frozen=True)
class _Decoded:
    """What decoding found; `pictures` are (3, H, W) uint8, fewer than asked for where the video ends before."""

    undamaged: int
    height: int
    width: int
    orientation: Orientation
    reshaped: str
    pictures: list[np.ndarray]
    loss: str | None


def _decode(
    reopen: Callable[[], AbstractContextManager[OpenVideo]],
    index: FrameIndex,
    deadline: float,
    prefetches: Sequence[ClipPrefetch] = (),
) -> _Decoded:
    """Decodes every frame and keeps the few sampled ones, small; hands each to the clips that are gathered.

    Raises:
        VideoError: No frame decodes, or a colour format cannot be converted.
        _TimeUpError: The deadline passed.
    """
    wanted = _SAMPLING.indices(index.timeline(0, index.num_frames))
    small: dict[int, np.ndarray] = {}
    places: list[tuple[int, int]] = []
    height = width = 0
    orientation, reshaped = Orientation(), ""
    with reopen() as video:
        convert = RGBConverter(video.path, PICTURE_SIZE)
        run = DecodingRun(video.stream.codec_context, skip=False)
        for frame, order, position in decode_all(video, run):
            if time.monotonic() > deadline:
                raise _TimeUpError
            if not places:
                orientation = Orientation.of(frame)
                height, width = orientation.displayed(frame.height, frame.width)
            elif not reshaped:
                high, wide = Orientation.of(frame).displayed(frame.height, frame.width)
                if abs(high * width - wide * height) > _SAME_SHAPE * wide * height:
                    reshaped = f"of {wide}x{high} from {_seconds(index, order):.2f} s on"
            places.append((order, position))
            if order in wanted:
                convert.write(frame, small.setdefault(order, np.empty((3, *PICTURE_SIZE), np.uint8)))
            for prefetch in prefetches:
                prefetch.put(frame, order)
    first = run.first_damage()
    if not small:  # not even the first of the sampled frames was reached
        why = f" ({first})" if first else ""
        raise VideoError(video.path, f"only {len(places)} of {index.num_frames} frames decode{why}")
    undamaged, harm = len(places), None
    if first:
        for order, position in places:
            if time.monotonic() > deadline:
                raise _TimeUpError
            if what := run.damage_to(order, position):
                undamaged -= 1
                harm = harm or f"frame {order} (at {_seconds(index, order):.2f} s) is damaged: {what}"
    missing = index.num_packets - len(places)
    allowed = 0 if index.timed else _TOLERATED_EMPTY_PACKETS * index.num_packets
    loss = index.loss
    if loss is None and (harm or missing > allowed):
        loss = f"{undamaged} of {index.num_packets} frames decode undamaged" + (f"; {harm}" if harm else "")
    return _Decoded(undamaged, height, width, orientation, reshaped, [small[i] for i in wanted if i in small], loss)


def _seconds(index: FrameIndex, order: int) -> float:
    """When a frame is displayed; a damaged video may display more frames than its index counts."""
    return index.timestamp(min(order, index.num_frames - 1))
