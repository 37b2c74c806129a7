"""Test videos to look at: which ones, their frames, and what each method says of them side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft.data.records import split_part
from rbft.errors import RBFTError
from rbft.report.collection import Entry
from rbft.report.group_data import Answer, Digest

_CLASSES, _FRAMES, _PIXELS = 5, 8, 160 * 160


@dataclass(frozen=True)
class Told:
    """What one method says of a video.

    Args:
        name: The method.
        answer: What its runs say; None where none was tested on it.
        predicted: The class with the highest mean probability; None where no run could read the video.
    """

    name: str
    answer: Answer | None
    predicted: str | None


@dataclass(frozen=True)
class Card:
    """A video of the gallery.

    Args:
        id: Its id.
        video: Its path under the data root.
        label: Its class.
        told: What each method says of it.
        classes: The classes that are shown, with each method's mean probability; None where there is none.
        frames: A data: address of its frames side by side; None where they cannot be shown.
        missing: Why they cannot be shown.
    """

    id: str
    video: str
    label: str
    told: tuple[Told, ...]
    classes: tuple[tuple[str, tuple[float | None, ...]], ...]
    frames: str | None
    missing: str

    @property
    def wrong(self) -> list[int]:
        """Numbers of the methods that are wrong."""
        return [number for number, one in enumerate(self.told) if one.answer is not None and one.answer.wrong]

    @property
    def disagree(self) -> bool:
        """Whether methods predict different classes."""
        return len({one.predicted for one in self.told if one.answer is not None}) > 1


def gallery(digests: Sequence[Digest], names: Sequence[str], count: int) -> tuple[list[Card], int]:
    """Choose videos and lay out what is said of them: errors first, then those that methods disagree about.

    Args:
        digests: Groups that were tested on the same videos, one a method.
        names: Of the methods.
        count: Most videos.

    Returns:
        The cards, and how many test videos there are.
    """
    truth: dict[str, tuple[str, str]] = {}
    for one in digests:
        truth |= one.truth
    cards = []
    for key, (video, label) in truth.items():
        told = tuple(_told(name, one, key) for name, one in zip(names, digests, strict=True))
        cards.append(Card(key, video, label, told, (), None, ""))
    ranked = sorted(cards, key=lambda card: (-len(card.wrong), not card.disagree, card.label, card.id))
    # where methods differ there is most to see of them: half of the places, if there are so many
    differing = [card for card in ranked if card.disagree][: max(1, count // 2)]
    others = [card for card in ranked if card not in differing]
    chosen = {id(card) for card in [*differing, *others][:count]}
    shown = [card for card in ranked if id(card) in chosen]
    return [_laid_out(card, digests) for card in shown], len(cards)


def _told(name: str, digest: Digest, key: str) -> Told:
    answer = digest.answers.get(key)
    if answer is None or answer.chances is None:
        return Told(name, answer, None)
    return Told(name, answer, digest.labels[int(answer.chances.argmax())])


def _laid_out(card: Card, digests: Sequence[Digest]) -> Card:
    """The card with its classes and its frames."""
    labels = digests[0].labels
    chances = [
        None if one.answer is None or one.answer.chances is None else one.answer.chances.tolist() for one in card.told
    ]
    best = {
        name: max((row[place] for row in chances if row is not None), default=0.0) for place, name in enumerate(labels)
    }
    top = sorted(labels, key=lambda name: (name != card.label, -best[name]))[:_CLASSES]
    classes = tuple((name, tuple(None if row is None else row[labels.index(name)] for row in chances)) for name in top)
    entry = next(one.entries[0] for one in digests if card.id in one.truth)
    frames, missing = _frames(entry, card.video)
    return Card(card.id, card.video, card.label, card.told, classes, frames, missing)


def _frames(entry: Entry, video: str) -> tuple[str | None, str]:
    """A clip's frames as a picture, or why there is none; read as the run read them, through the one safe door."""
    root = entry.where / Path(str(entry.run.data.get("root"))).expanduser()
    path, part = split_part(video)
    if not (root / path).is_file():
        return None, "the video is not there any more"
    # torch takes seconds to import, and no table needs it
    from rbft.evaluation.figures import frames_jpeg
    from rbft.video.clip import read_clip
    from rbft.video.clip_spec import ClipSpec
    from rbft.video.sampling import FrameSampling

    settings: dict[str, Any] = entry.run.data
    try:
        sampling = FrameSampling(num_frames=min(_FRAMES, settings.get("num_frames") or _FRAMES))
        clip = read_clip(path, ClipSpec(sampling, _PIXELS).of_part(part), root)
    except (RBFTError, TypeError) as error:
        return None, f"the video cannot be shown: {error}"
    return "data:image/jpeg;base64," + base64.b64encode(frames_jpeg(clip.frames)).decode(), ""
