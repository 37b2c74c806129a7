"""Checks of the text alone: which class it states, whether it goes in circles, whether it was cut."""

from __future__ import annotations

import zlib

from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.wording import ngrams, words

_SENTENCE_ENDS = tuple(".!?…。！？؟।")
_CLOSING = "\"'”’»)]*_` "
_NEEDS_MORE = ("a", "an", "the", "and", "or", "but", "of", "at", "to", "with", "by", "for", "from", "is", "are", "was")
_ENDINGS = ("s", "es", "d", "ed", "ing", "ly", "er", "'s", "’s")
# zlib's own header, checksum and smallest code
_ZLIB_OVERHEAD = 11
# plain prose of any length a model writes is compressed to more than this share of its bytes
_PROSE = 0.25


class LabelParse(Check):
    """Whether the text itself concludes with the class of its video: 1 or 0.

    What remains of STaR's filter (arXiv 2203.14465). It means something where the class was not given (`hint: blind`);
    a model that was given it repeats it.

    Args:
        threshold: Lowest score that passes.
    """

    name = "label_parse"

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)

    def _scores(self, material: Material) -> list[float | None]:
        return [float(rationale.stated == rationale.label) for rationale in material.rationales]


class Repetition(Check):
    """How little a text repeats itself: the share of runs of three words that are new, or less if it compresses well.

    Compression sees loops inside words and in scripts that do not separate words.

    Args:
        threshold: Lowest score that passes; a sentence said twice scores about 0.5, three times about 0.35.
    """

    name = "repetition"

    def __init__(self, threshold: float = 0.65) -> None:
        super().__init__(threshold)

    def _scores(self, material: Material) -> list[float | None]:
        return [_novelty(rationale.text) for rationale in material.rationales]


class Truncation(Check):
    """Whether the text came to its end: 0 where it ran into the length limit or breaks off inside a sentence.

    Before a conclusion a text may lack its full stop, but not end in a comma, in a word that needs another, or in a
    piece of a word that it has written out elsewhere, as texts do that go in circles until they are cut.

    Args:
        threshold: Lowest score that passes.
    """

    name = "truncation"

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)

    def _scores(self, material: Material) -> list[float | None]:
        # after a conclusion the text was complete, with a full stop or without, unless others appended it to a torso
        closed = [r.stated is not None and not material.book.begins_with_class(r.written) for r in material.rationales]
        return [
            float(not r.truncated and (_ends(r.text) or (done and not _breaks_off(r.text))))
            for r, done in zip(material.rationales, closed, strict=True)
        ]


def _ends(text: str) -> bool:
    return text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


def _breaks_off(text: str) -> bool:
    all_words = words(text)
    last = all_words[-1] if all_words else ""
    longer = (word.removeprefix(last) for word in all_words[:-1] if word.startswith(last))
    torso = len(last) > 1 and all_words.count(last) == 1 and any(rest not in _ENDINGS for rest in longer)
    return text.rstrip().endswith((",", ";", ":", "-", "–", "—")) or last in _NEEDS_MORE or torso


def _novelty(text: str) -> float:
    runs = ngrams(words(text), 3)
    distinct = len(set(runs)) / len(runs) if runs else 1.0
    content = text.encode()
    compressed = max(0, len(zlib.compress(content, 9)) - _ZLIB_OVERHEAD)
    return min(distinct, compressed / len(content) / _PROSE, 1.0)
