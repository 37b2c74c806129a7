"""Rationales as words: how they are cut, compared, and freed of the names of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "___"

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


class LabelMask:
    """Finds the words of classes in texts.

    Args:
        texts: How each class is written. Longer ones are looked for first: of "push up" no "up" is left.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [r"[\s_-]+".join(re.escape(word) for word in re.split(r"[\s_-]+", text)) for text in texts]
        choice = "|".join(sorted(pieces, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{choice}){_ENDINGS}(?!\w)", re.IGNORECASE)

    def hide(self, text: str) -> str:
        """The text with `MASK` for the words of every class."""
        return self._pattern.sub(MASK, text)

    def found(self, text: str) -> list[str]:
        """The words of classes that stand in the text, as they stand there."""
        return [match.group() for match in self._pattern.finditer(text)]
