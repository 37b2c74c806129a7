"""Rationales as words: how they are cut, compared, and freed of the names of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

MASK = "___"
Integers = npt.NDArray[np.int64]

# letters of any script with the marks and joiners inside a word; signs that stand for themselves are no words
_WORD = re.compile(r"\w+(?:[’'-]\w+)*")
# what English adds to a class name when it stands inside a sentence: falls, fighting, abnormally
_ENDINGS = r"(?:s|es|d|ed|ing|ly|ity)?"


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.casefold())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` words, in order."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def numbered_runs(texts: Sequence[Sequence[str]], longest: int) -> list[tuple[Integers, Integers]]:
    """All runs of words of texts as numbers; many thousand texts take a second.

    Args:
        texts: The words of each.
        longest: Most words of a run.

    Returns:
        For runs of 1 to `longest` words, in the order of the texts: the index of each run's text, and its number. Equal
        runs have equal numbers, from 0 without gaps.
    """
    known: dict[str, int] = {}
    flat = np.fromiter((known.setdefault(word, len(known)) for word in chain.from_iterable(texts)), np.int64)
    rows = np.repeat(np.arange(len(texts)), np.array([len(text) for text in texts], np.int64))
    runs = [(rows, flat)]
    for n in range(2, longest + 1):
        before_rows, before = runs[-1]
        last_rows, last = rows[n - 1 :], flat[n - 1 :]
        # those of one word less that the text goes on after
        goes_on = np.append(before_rows[1:] == before_rows[:-1], False)[: len(before)]
        within = last_rows == rows[: len(last_rows)]
        _, numbers = np.unique(before[goes_on] * max(1, len(known)) + last[within], return_inverse=True)
        runs.append((last_rows[within], numbers))
    return runs


class LabelMask:
    """Finds the words of classes in texts.

    Args:
        texts: How each class is written. Longer ones are looked for first: of "push up" no "up" is left.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [
            r"[\s_-]+".join(re.escape(word) for word in re.split(r"(?<=\w)[\s_-]+(?=\w)", text)) for text in texts
        ]
        choice = "|".join(sorted(pieces, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{choice}){_ENDINGS}(?!\w)", re.IGNORECASE)

    def hide(self, text: str) -> str:
        """The text with `MASK` for the words of every class."""
        return self._pattern.sub(MASK, text)

    def found(self, text: str) -> list[str]:
        """The words of classes that stand in the text, as they stand there."""
        return [match.group() for match in self._pattern.finditer(text)]
