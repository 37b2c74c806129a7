"""Controls: stage 1 on texts that lack what a rationale is thought to give, to find out whether the words matter.

What each takes away follows the ablations of Wadhwa et al. (arXiv 2406.14511): which video a text is of, the order of
its words, its content, or all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
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
class ReplacedWords(Control):
    """A part of the deciding words become others of their kind: how good the words of a rationale must be.

    The same seed replaces the same words and more of them where `share` is larger.

    Args:
        share: Part of all occurrences of the deciding words that is replaced, from 0 to 1.
        words: Words, or runs of words, of one kind, of which each is replaced by another one drawn at random. Without
            any these are the words that say most about the class (mutual information, in these very texts). Of few
            texts these are partly chance, so name them where you know them.
        count: How many words are taken where `words` names none.
    """

    share: float = 0.25
    words: tuple[str, ...] = ()
    count: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"model.control.share: {self.share} must lie in [0, 1].")
        if self.words and len({word for word in self.words if word.split()}) < max(2, len(self.words)):
            raise ConfigError("model.control.words: name at least two different words, each once and none empty.")
        if self.count < 2:
            raise ConfigError(f"model.control.count: {self.count} must be at least 2; one word has no other.")

    def apply(self, rationales: Sequence[Rationale], seed: int, records: Sequence[VideoRecord] = ()) -> list[Rationale]:
        """Replace the words.

        Raises:
            DataError: None of the words occurs in any text.
        """
        words = self.words or _telling_words(rationales, self.count)
        longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        found = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)")
        places = [(row, match) for row, r in enumerate(rationales) for match in found.finditer(r.text)]
        if not places:
            raise DataError(
                f"model.control.words: no rationale holds any of {', '.join(map(repr, words))}. Name words as the "
                "texts have them; rationales.jsonl shows them."
            )
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(places))
        others = [rng.integers(len(words) - 1) for _ in places]
        texts = [rationale.text for rationale in rationales]
        # from the end of each text, so that the places before stay where they are
        for place in sorted(order[: round(self.share * len(places))], reverse=True):
            row, match = places[place]
            other = [word for word in words if word != match.group()][others[place]]
            texts[row] = texts[row][: match.start()] + other + texts[row][match.end() :]
        return [replace(rationale, text=text) for rationale, text in zip(rationales, texts, strict=True)]


def _telling_words(rationales: Sequence[Rationale], count: int) -> tuple[str, ...]:
    """The words with the greatest mutual information with the class; of equals the first by alphabet.

    Raises:
        DataError: There are fewer than two different words.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.feature_selection import mutual_info_classif

    if len({word for rationale in rationales for word in re.findall(r"\w+", rationale.text)}) < 2:
        raise DataError("model.control: the rationales hold fewer than two different words; there is none to exchange.")
    counts = CountVectorizer(binary=True, lowercase=False, token_pattern=r"\w+")
    table = counts.fit_transform([rationale.text for rationale in rationales])
    telling = mutual_info_classif(table, [rationale.label for rationale in rationales], discrete_features=True)
    return tuple(counts.get_feature_names_out()[np.argsort(-telling, kind="stable")[:count]].tolist())


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
