"""Writes frames as an mp4 file whose bytes depend on nothing but the frames and the settings."""

from __future__ import annotations

from pathlib import Path

import av

from rbft.worlds.shapes import Frames


def write_mp4(path: Path, frames: Frames, fps: int, crf: int) -> None:
    """Encodes with x264 on one thread, 4:2:0, without dates or version strings in the container.

    Args:
        path: File to write.
        frames: (T, H, W, 3) uint8 RGB; H and W even.
        fps: Frames a second.
        crf: x264's constant rate factor; larger is smaller and worse.
    """
    with av.open(str(path), mode="w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # Macroblock tree rate control gives other bytes from run to run on the same frames.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.thread_count = 1
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
