"""What a test's answers rest on: tested again on degraded clips, and after a fixed rationale with another video."""

from __future__ import annotations

from dataclasses import dataclass

from rbft.errors import ConfigError
from rbft.video.clip_spec import ClipControl


@dataclass(frozen=True)
class Robustness:
    """Further passes of a test over its videos, at the chosen strength and way of answering.

    Args:
        ladder: degradations of the clips, each a pass of its own: `dropped`, `blurred`, `shuffled`, `reversed`, `blank`
            (the protocol of arXiv 2606.22862). An answer that stays right on blank clips was not read off the video.
        swap: whether each video's own rationale is kept, and the classes are scored after it with a video of another
            class shown. Answers that do not change rest on the text alone.
    """

    ladder: tuple[ClipControl, ...] = ()
    swap: bool = False

    def __post_init__(self) -> None:
        if "none" in self.ladder or len(set(self.ladder)) < len(self.ladder):
            raise ConfigError(
                f"model.robustness.ladder: {list(self.ladder)} must name different degradations, not none."
            )

    @property
    def passes(self) -> int:
        """Passes over the test videos beside the test's own."""
        return len(self.ladder) + self.swap
