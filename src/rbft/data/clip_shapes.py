"""How many frames of which size a clip has, known from the video's facts before it is decoded."""

from __future__ import annotations

from typing import NamedTuple

from rbft.data.video_facts import VideoFacts
from rbft.video.frame_size import fit_size
from rbft.video.sampling import FrameSampling
from rbft.vlm.processing import FrameBound


class ClipShape(NamedTuple):
    """Frames of a clip, and height and width of each in pixels, as they are decoded."""

    frames: int
    height: int
    width: int


def clip_shape(facts: VideoFacts, sampling: FrameSampling, bound: FrameBound) -> ClipShape:
    """The shape of the clip that `rbft.video.clip.read_clip` gives of a readable video.

    Args:
        facts: Of the video.
        sampling: Which frames are taken.
        bound: How they are decoded.
    """
    frames = sampling.at_most(bound.max_frames).count(facts.decoded_frames, facts.fps)
    height, width = facts.height, facts.width
    if bound.budget is not None:
        height, width = bound.budget.frame_size(frames, height, width, bound.max_pixels)
    elif bound.max_pixels is not None:
        height, width = fit_size(height, width, bound.max_pixels, bound.multiple)
    return ClipShape(frames, height, width)
