"""Small videos that look like nothing else: a random pattern with a random square moving over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support.videos import write_video


def scene(seed: int, num_frames: int = 16, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Frames (T, H, W, 3) uint8; other seeds give other places and other motion."""
    rng = np.random.default_rng(seed)
    height, width = size
    pattern = rng.integers(20, 236, (8, 8, 3)).repeat(-(-height // 8), axis=0).repeat(-(-width // 8), axis=1)
    frames = np.tile(pattern[:height, :width].astype(np.uint8), (num_frames, 1, 1, 1))
    start, end = rng.random(2), rng.random(2)
    side = height // 4
    for number, frame in enumerate(frames):
        top, left = (start + (end - start) * number / num_frames) * (height - side, width - side)
        frame[int(top) : int(top) + side, int(left) : int(left) + side] = 255
    return frames


def write_scene(path: Path, seed: int, num_frames: int = 16, crf: int = 20, size: tuple[int, int] = (96, 128)) -> Path:
    """A scene as an h264 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, scene(seed, num_frames, size), codec_options={"crf": str(crf), "preset": "veryfast"})
