"""Figures of a set of texts: lengths, variety, openings, duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbft.rationales.checks.wording import numbered_runs, words

_OPENING = 3
_LONGEST_RUN = 4


@dataclass(frozen=True)
class Text:
    """A rationale cut into words once.

    Args:
        id: id of the video.
        label: label of the video.
        words: words in lower case.
    """

    id: str
    label: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, id: str, label: str, text: str) -> Text:
        """Cut a text."""
        return cls(id, label, tuple(words(text)))


def lengths(texts: Sequence[Text]) -> dict[str, float]:
    """Words of a text: mean, and the quantiles 0, 0.1, 0.5, 0.9 and 1."""
    counts = [len(text.words) for text in texts]
    quantiles = np.quantile(counts, (0, 0.1, 0.5, 0.9, 1)).tolist()
    return {"mean": float(np.mean(counts)), **dict(zip(("min", "p10", "median", "p90", "max"), quantiles, strict=True))}


def distinct(texts: Sequence[Text]) -> dict[str, float | None]:
    """Distinct runs of 1 to 4 words over all such runs of the set (Li et al., arXiv 1510.03055); None without any.

    It falls as a set grows: compare sets of one size.
    """
    runs = numbered_runs([text.words for text in texts], _LONGEST_RUN)
    return {
        str(n): (int(numbers.max()) + 1) / len(numbers) if len(numbers) else None
        for n, (_, numbers) in enumerate(runs, start=1)
    }


def openings(texts: Sequence[Text], count: int = 5) -> list[tuple[str, float]]:
    """The commonest first three words, each with its share of the texts."""
    counts = Counter(" ".join(text.words[:_OPENING]) for text in texts)
    return [(opening, number / len(texts)) for opening, number in counts.most_common(count)]


def duplicates(texts: Sequence[Text], count: int = 5) -> tuple[float, list[tuple[str, int]]]:
    """Share of texts that another video has word for word, and the commonest of those with how many videos have it."""
    videos: dict[tuple[str, ...], set[str]] = {}
    for text in texts:
        videos.setdefault(text.words, set()).add(text.id)
    shared = sum(len(videos[text.words]) > 1 for text in texts) / len(texts)
    most = sorted(videos.items(), key=lambda item: -len(item[1]))[:count]
    return shared, [(" ".join(said), len(ids)) for said, ids in most if len(ids) > 1]
