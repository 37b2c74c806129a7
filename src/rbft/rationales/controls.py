"""Controls: stage 1 on texts that lack what a rationale is thought to give, to find out whether the words matter.

What each takes away follows the ablations of Wadhwa et al. (arXiv 2406.14511): which video a text is of, the order of
its words, its content, or all of it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError
from rbft.rationales.store import Rationale

_FILLER = (
    "This is a recording of something that takes place somewhere at some time, and it can be watched from its first "
    "moment to its last one, so that everything in it comes before or after everything else in it."
)


class Control(ABC):
    """Changes the kept rationales before stage 1 is trained on them; the store stays as it is."""

    @abstractmethod
    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """The texts to train on instead.

        Args:
            rationales: The kept ones.
            seed: seed of whatever is drawn.
            records: The training videos.
        """

    def takes(self, records: Sequence[VideoRecord]) -> str:
        """What it takes from the training videos' records, as a hash; nothing unless it says otherwise.

        Raises:
            DataError: The texts that it needs are missing.
        """
        return ""


@dataclass(frozen=True)
class ShuffledVideos(Control):
    """Every video gets the texts of another one; its class stays its own.

    Args:
        within: `class` exchanges texts between videos of one class, so that they still argue for the right one;
            `all` hands them to videos of other classes wherever there are any.
    """

    within: Literal["class", "all"] = "class"

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Exchange the texts.

        Raises:
            DataError: A video has no other to exchange with.
        """
        texts: dict[str, list[Rationale]] = {}
        for rationale in rationales:
            texts.setdefault(rationale.id, []).append(rationale)
        labels = {rationale.id: rationale.label for rationale in rationales}
        videos = sorted(texts)
        rng = np.random.default_rng(seed)
        rng.shuffle(videos)
        if self.within == "class":
            groups = [[video for video in videos if labels[video] == name] for name in sorted(set(labels.values()))]
        else:
            # sorted by class and turned by the size of the largest, no video gets a text of its own class
            groups = [sorted(videos, key=lambda video: labels[video])]
        donor: dict[str, str] = {}
        for group in groups:
            if len(group) < 2:
                raise DataError(
                    f"model.control: the only rationale of the class {labels[group[0]]!r} is of the video "
                    f"{group[0]!r}; there is none to exchange it with."
                )
            sizes = [sum(labels[video] == name for video in group) for name in {labels[video] for video in group}]
            turn = 1 if self.within == "class" else max(sizes)
            donor |= {video: group[(place + turn) % len(group)] for place, video in enumerate(group)}
        shuffled = []
        for rationale in rationales:
            others = texts[donor[rationale.id]]
            position = [other.sample for other in texts[rationale.id]].index(rationale.sample)
            shuffled.append(replace(rationale, text=others[position % len(others)].text))
        return shuffled


@dataclass(frozen=True)
class ShuffledWords(Control):
    """Every text keeps its words and loses their order."""

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Shuffle the words of each text."""
        shuffled = []
        for number, rationale in enumerate(rationales):
            words = rationale.text.split()
            np.random.default_rng((seed, number)).shuffle(words)
            shuffled.append(replace(rationale, text=" ".join(words)))
        return shuffled


@dataclass(frozen=True)
class GenericText(Control):
    """Every text becomes one that fits any video, of as many words.

    Args:
        text: What it says, repeated or cut to length.
    """

    text: str = _FILLER

    def __post_init__(self) -> None:
        if not self.text.split():
            raise ConfigError("model.control.text: must be some words.")

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Replace the texts."""
        words = self.text.split()
        return [
            replace(rationale, text=" ".join(words[i % len(words)] for i in range(len(rationale.text.split()))))
            for rationale in rationales
        ]


@dataclass(frozen=True)
class NoDescription(Control):
    """The class alone under the rationale question: as much practice of that question, and not a word of rationale."""

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Leave out the texts."""
        return [replace(rationale, text="") for rationale in rationales]


@dataclass(frozen=True)
class RandomDrop(Control):
    """As many rationales as a filter would leave, but drawn at random within each class.

    Args:
        keep: Part of each class that is kept, rounded up.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ConfigError(f"model.control.keep: {self.keep} must lie in (0, 1].")

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Draw those that stay, in their order."""
        chosen: set[int] = set()
        for name in sorted({rationale.label for rationale in rationales}):
            places = [place for place, rationale in enumerate(rationales) if rationale.label == name]
            count = int(np.ceil(self.keep * len(places) - 1e-9))
            rng = np.random.default_rng((seed, *name.encode()))
            chosen |= {places[i] for i in rng.permutation(len(places))[:count]}
        return [rationale for place, rationale in enumerate(rationales) if place in chosen]


@dataclass(frozen=True)
class HumanText(Control):
    """Every video gets what people wrote about it, a column of the data set: what rationales could be at their best.

    Args:
        column: Name of the column: one of the format's `text_columns`, or `description` of `ShapesWorld`.
    """

    column: str = "description"

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Replace the texts; of several rationales of a video the first stays."""
        texts = self._texts(records)
        first = {rationale.id: rationale for rationale in reversed(rationales)}
        # nobody wrote about an unlabelled video
        return [replace(r, text=texts[r.id]) for r in reversed(first.values()) if r.labelled]

    def takes(self, records: Sequence[VideoRecord]) -> str:
        """The texts of the column."""
        content = json.dumps(sorted(self._texts(records).items()))
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def _texts(self, records: Sequence[VideoRecord]) -> dict[str, str]:
        for record in records:
            if not record.text.get(self.column, "").strip():
                raise DataError(
                    f"model.control: {record.path} has no text in the column {self.column!r}; it has "
                    f"{', '.join(map(repr, sorted(record.text))) or 'none'}. Name another column, or fill it."
                )
        return {record.id: record.text[self.column].strip() for record in records}
