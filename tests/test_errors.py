"""Errors cross process boundaries whole."""

from __future__ import annotations

import pickle

from rbft.errors import VideoError
from rbft.video.reader import FrameMissingError


def test_video_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(VideoError("a/b.mp4", "is empty (0 bytes)")))
    assert (error.path, error.reason, str(error)) == ("a/b.mp4", "is empty (0 bytes)", "a/b.mp4: is empty (0 bytes)")
    short = pickle.loads(pickle.dumps(FrameMissingError("c.mp4", "frame 9 does not exist", 8)))
    assert (short.path, short.num_frames) == ("c.mp4", 8)
