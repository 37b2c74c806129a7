"""The readers that benchmarks compare: ours, the naive one and the peers, each set to one thread where it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from rbft.video.reader import read_frames

OURS, NAIVE = "rbft", "naive pyav"
PEER_PACKAGES = ("decord", "torchcodec", "opencv-python-headless")

# Frames of a video by index, scaled to (height, width) or as they are: (T, C, H, W) or (T, H, W, C) uint8 RGB.
Reader = Callable[[Path, Sequence[int], tuple[int, int] | None], Any]


def load_readers() -> tuple[dict[str, Reader], dict[str, str]]:
    """The readers that can be imported here, and for the others why not, by name.

    Every reader gets its frames in the cheapest way its interface offers: scaled inside of the reader where it scales,
    else only the wanted frames.
    """
    makers: dict[str, Callable[[], Reader]] = {
        NAIVE: lambda: _naive,
        OURS: lambda: _ours,
        "decord": _decord,
        "torchcodec exact": _torchcodec,
        "transformers pyav": _transformers,
        "opencv grab": lambda: _opencv(seek=False),
        "opencv seek": lambda: _opencv(seek=True),
    }
    readers: dict[str, Reader] = {}
    gaps: dict[str, str] = {}
    for name, make in makers.items():
        try:
            readers[name] = make()
        except (ImportError, OSError, RuntimeError) as error:  # the latter two: a shared library is missing
            gaps[name] = f"cannot be imported: {first_line(error)}"
    return readers, gaps


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _ours(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> torch.Tensor:
    return read_frames(path, indices, size).frames


def _naive(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> torch.Tensor:
    """What is usually written: decode all, convert all, then pick, then scale."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return _scaled(np.stack([frames[index] for index in indices]), size)


def _scaled(frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
    """Scales (T, H, W, C) as the video processors of transformers do; gives (T, C, H, W)."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return pictures if size is None else resize(pictures, list(size), InterpolationMode.BICUBIC, antialias=True)


def _decord() -> Reader:
    from decord import VideoReader, cpu

    def read(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        height, width = size or (-1, -1)
        reader = VideoReader(str(path), ctx=cpu(0), width=width, height=height, num_threads=1)
        return reader.get_batch(list(indices)).asnumpy()

    return read


def _torchcodec() -> Reader:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def read(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> torch.Tensor:
        scaling = None if size is None else [Resize(size)]
        decoder = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, transforms=scaling)
        return decoder.get_frames_at(list(indices)).data

    return read


def _transformers() -> Reader:
    from transformers.video_utils import read_video_pyav

    def read(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> torch.Tensor:
        source: Any = path  # the annotation names a class that is not there
        frames, _ = read_video_pyav(source, sample_indices_fn=lambda metadata: np.asarray(indices))
        return _scaled(frames, size)

    return read


def _opencv(seek: bool) -> Reader:
    """Its frames by decoding up to the last of them without converting the others, or by seeking to each."""
    import cv2

    cv2.setNumThreads(1)

    def read(path: Path, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        frames = []
        position = 0
        try:
            for index in indices:
                if seek:
                    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
                while not seek and position < index:
                    capture.grab()
                    position += 1
                there, frame = capture.read()
                position += 1
                if not there:
                    raise RuntimeError(f"gives no frame {index}")
                if size is not None:
                    frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        finally:
            capture.release()
        return np.stack(frames)

    return read
