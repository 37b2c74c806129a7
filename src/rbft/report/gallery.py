"""Test videos to look at: which ones, their frames, and what each method says of them side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rbft.data.records import split_part
from rbft.errors import RBFTError
from rbft.files import expanded
from rbft.report.collection import Entry
from rbft.report.group_data import Answer, Digest
from rbft.video.content import is_there

_CLASSES, _FRAMES, _PIXELS = 5, 8, 160 * 160


@dataclass(frozen=True)
class Verdict:
    """What one method says of a video.

    Args:
        name: the method's name.
        answer: predictions of the method's runs together; None where no run was tested on the video.
        predicted: class with the highest mean probability; None where no run could read the video.
    """

    name: str
    answer: Answer | None
    predicted: str | None


@dataclass(frozen=True)
class Card:
    """A video of the gallery.

    Args:
        id: id of the video.
        video: path under the data root.
        label: true class.
        verdicts: what each method says of the video.
        classes: shown classes, each with the mean probability of every method; None where there is none.
        frames: `data:` URL of the frames side by side; None where they cannot be shown.
        missing: why the frames cannot be shown; empty where they are.
    """

    id: str
    video: str
    label: str
    verdicts: tuple[Verdict, ...]
    classes: tuple[tuple[str, tuple[float | None, ...]], ...]
    frames: str | None
    missing: str

    @property
    def wrong(self) -> list[int]:
        """Numbers of the methods that are wrong."""
        return [
            number
            for number, verdict in enumerate(self.verdicts)
            if verdict.answer is not None and verdict.answer.wrong
        ]

    @property
    def disagree(self) -> bool:
        """Whether methods predict different classes."""
        return len({verdict.predicted for verdict in self.verdicts if verdict.answer is not None}) > 1


def gallery(digests: Sequence[Digest], names: Sequence[str], count: int) -> tuple[list[Card], int]:
    """Choose test videos and collect what each method says: errors first, then videos that methods disagree about.

    Args:
        digests: groups that were tested on the same videos, one a method.
        names: names of the methods.
        count: most videos to show.

    Returns:
        The cards, and how many test videos there are.
    """
    truth: dict[str, tuple[str, str]] = {}
    for group in digests:
        truth |= group.truth
    cards = []
    for key, (video, label) in truth.items():
        verdicts = tuple(_verdict(name, group, key) for name, group in zip(names, digests, strict=True))
        cards.append(Card(key, video, label, verdicts, (), None, ""))
    ranked = sorted(cards, key=lambda card: (-len(card.wrong), not card.disagree, card.label, card.id))
    # where methods differ there is most to see of them: half of the places, if there are so many
    differing = [card for card in ranked if card.disagree][: max(1, count // 2)]
    others = [card for card in ranked if card not in differing]
    chosen = {id(card) for card in [*differing, *others][:count]}
    shown = [card for card in ranked if id(card) in chosen]
    return [_laid_out(card, digests) for card in shown], len(cards)


def _verdict(name: str, digest: Digest, key: str) -> Verdict:
    answer = digest.answers.get(key)
    if answer is None or answer.chances is None:
        return Verdict(name, answer, None)
    return Verdict(name, answer, digest.labels[int(answer.chances.argmax())])


def _laid_out(card: Card, digests: Sequence[Digest]) -> Card:
    """The card with its classes and its frames."""
    labels = digests[0].labels
    chances = [
        None if verdict.answer is None or verdict.answer.chances is None else verdict.answer.chances.tolist()
        for verdict in card.verdicts
    ]
    best = {
        name: max((row[place] for row in chances if row is not None), default=0.0) for place, name in enumerate(labels)
    }
    top = sorted(labels, key=lambda name: (name != card.label, -best[name]))[:_CLASSES]
    classes = tuple((name, tuple(None if row is None else row[labels.index(name)] for row in chances)) for name in top)
    entry = next(group.entries[0] for group in digests if card.id in group.truth)
    frames, missing = _frames(entry, card.video)
    return Card(card.id, card.video, card.label, card.verdicts, classes, frames, missing)


def _frames(entry: Entry, video: str) -> tuple[str | None, str]:
    """A clip's frames as a picture, or why there is none; read as the run read them, through the one safe door."""
    root = entry.where / expanded(str(entry.run.data.get("root")))
    path, part = split_part(video)
    if not is_there(root / path):
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
