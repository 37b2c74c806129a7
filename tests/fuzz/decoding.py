"""A process that reads videos on request, so that a hang, a crash and its memory are seen from outside."""

from __future__ import annotations

import multiprocessing
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Answer:
    """What became of one video.

    Args:
        outcome: `clip`, `refused`, or, where something is wrong with the reader, `raised`, `hung` or `crashed`.
        message: Of the error.
        numbers: Of the frames: (index the clip states, number that the picture carries; None if it is illegible).
        trouble: What is wrong with the clip.
        seconds: It took.
        megabytes: Most memory of the process so far.
    """

    outcome: str
    message: str = ""
    numbers: tuple[tuple[int, int | None], ...] = ()
    trouble: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def _read(path: Path) -> Answer:
    from tests.support.videos import read_number

    from rbft.errors import VideoError
    from rbft.video.clip import read_clip
    from rbft.video.clip_spec import ClipSpec
    from rbft.video.container import probe
    from rbft.video.sampling import FrameSampling

    def number(frame: np.ndarray) -> int | None:
        try:
            return read_number(frame)
        except ValueError:
            return None

    try:
        probe(path.name, path.parent)
        clip = read_clip(path.name, ClipSpec(FrameSampling(num_frames=4), 65536), path.parent)
    except VideoError as error:
        return Answer("refused", str(error))
    except BaseException as error:
        return Answer("raised", f"{type(error).__name__}: {error}")
    numbers = tuple((i, number(frame.numpy())) for i, frame in zip(clip.indices, clip.frames, strict=True))
    return Answer("clip", numbers=numbers, trouble=_trouble(clip))


def _trouble(clip: object) -> str:
    """What of a clip is not as its documentation says."""
    from rbft.video.clip import Clip

    assert isinstance(clip, Clip)
    count, channels, height, width = clip.frames.shape
    ascending = all(a <= b for a, b in zip(clip.timestamps, clip.timestamps[1:], strict=False))
    checks = {
        "shape": (count, channels) == (4, 3) and 0 < height * width <= 65536,
        "times": len(clip.timestamps) == 4 and bool(np.isfinite(clip.timestamps).all()) and ascending,
        "indices": list(clip.indices) == sorted(clip.indices) and clip.indices[0] >= 0,
        "number of frames": clip.indices[-1] < clip.total_num_frames,
        "rate": np.isfinite(clip.fps) and clip.fps >= 0,
        "duration": np.isfinite(clip.duration) and clip.duration >= 0,
    }
    return ", ".join(name for name, good in checks.items() if not good)


def _serve(connection: Connection) -> None:
    while True:
        path = connection.recv()
        if path is None:
            return
        start = time.perf_counter()
        answer = _read(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send(
            Answer(answer.outcome, answer.message, answer.numbers, answer.trouble, time.perf_counter() - start, peak)
        )


class Decoder:
    """Reads videos in a process of its own, which is replaced when it hangs or crashes.

    Args:
        seconds: A video may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._connection.send(None)
            self._process.join(10)
        self._process.kill()

    def read(self, path: Path, extra: float = 0.0) -> Answer:
        """What becomes of a video; `extra` seconds are for the start of a process."""
        try:
            self._connection.send(path)
            if self._connection.poll(self.seconds + extra):
                return self._connection.recv()
            answer = Answer("hung", f"no answer within {self.seconds} s")
        except (EOFError, ConnectionError):
            self._process.join(10)
            answer = Answer("crashed", f"exit code {self._process.exitcode}")
        self._process.kill()
        self._start()
        return answer
