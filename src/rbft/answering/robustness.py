"""What a test's answers rest on: tested again on degraded clips, and behind a fixed rationale with another video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction
from rbft.video.clip_spec import ClipControl

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Robustness:
    """Further passes of a test over its videos, at the chosen strength and way of answering.

    Args:
        ladder: degradations of the clips, each a pass of its own: `dropped`, `blurred`, `shuffled`, `reversed`, `blank`
            (the protocol of arXiv 2606.22862). An answer that stays right on blank clips was not read off the video.
        swap: whether each video's own rationale is kept, and the classes are scored behind it with a video of another
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


def partners(records: Sequence[VideoRecord]) -> dict[str, VideoRecord]:
    """The video shown in the place of each, by the id of the latter: every video stands in once.

    It is of another class wherever no class has more than half of the videos.
    """
    ordered = sorted(records, key=lambda record: record.label)
    labels = [record.label for record in ordered]
    step = max((labels.count(label) for label in set(labels)), default=0)
    return {record.id: ordered[(place + step) % len(ordered)] for place, record in enumerate(ordered)}


def swap_figures(
    own: Sequence[Prediction], swapped: Mapping[str, Prediction], shown: Mapping[str, VideoRecord], names: Sequence[str]
) -> Figures:
    """How answers behind a fixed rationale change with the video; of videos that another class stands in for.

    Args:
        own: predictions with their own video, with answers after a rationale.
        swapped: predictions behind the same rationales, by the id of the video that was shown.
        shown: video that was shown in the place of each, by the id of the latter.
        names: the classes.

    Returns:
        `swapped_video/accuracy`: share still answered with the class of the rationale's own video; `/unchanged`: share
        with the same answer as before; `/follows_video`: share with the class of the video that was shown. None where
        there is no such video.
    """

    def said(prediction: Prediction) -> str:
        chances = prediction.answers["rationale"]
        return names[chances.index(max(chances))]

    triples = [
        (prediction, said(swapped[shown[prediction.id].id]), shown[prediction.id].label)
        for prediction in own
        if shown[prediction.id].label != prediction.label
    ]

    def share(hits: Sequence[bool]) -> float | None:
        return sum(hits) / len(hits) if hits else None

    return {
        "swapped_video/accuracy": share([now == before.label for before, now, _ in triples]),
        "swapped_video/unchanged": share([now == said(before) for before, now, _ in triples]),
        "swapped_video/follows_video": share([now == other for _, now, other in triples]),
    }
