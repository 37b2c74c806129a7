"""The check for texts that speak of the answer they were given instead of the video."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rbft.data.prompt_templates import PromptBook
from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.wording import LabelMask, words

_NAME = r"(?:label|class|classification|category|answer|annotation)"
# How English-speaking models betray that the class was handed to them.
_PHRASES = (
    r"ground[\s-]?truth",
    rf"gold(?:en)?[\s-](?:standard|{_NAME})",
    rf"(?:given|provided|correct|known|stated|assigned|annotated|supplied|pre-?defined) {_NAME}",
    rf"{_NAME} (?:is|was|has been|that was) (?:already )?(?:given|provided|known|stated|specified|assigned|supplied)",
    r"(?:video|clip|footage|scene|it) (?:is|was|has been) (?:already )?(?:labell?ed|annotated|tagged) (?:as|with)",
    rf"according to the (?:{_NAME}|prompt|hint|instructions?)",
    r"(?:prompt|hint|question|instructions?) (?:says?|states?|tells?|gives?|mentions?|indicates?)",
    r"(?:told|given|stated|mentioned|indicated|specified) (?:in|by) the (?:prompt|question|label|hint|instructions?)",
    r"(?:i|we) (?:was|were|am|are|have been|had been) (?:told|informed|given)",
    r"it is known (?:to|that)",
)
_FEWEST_HINT_WORDS = 2


class Leak(Check):
    """Whether the text betrays that the answer was given: 0 if it does, else 1.

    Looked for are the sentences of `hinted_question` that hand over the class (with any class in its place), phrases
    such as "the ground truth" or "the provided label", and, if asked for, the words of the video's class.

    Args:
        phrases: More phrases to look for, for other languages; case does not matter.
        label_words: Whether the words of the video's class may not stand in the text either; right for classes that are
            verdicts (abnormal), wrong for classes that are seen (horse riding).
        threshold: Lowest score that passes.
    """

    name = "leak"

    def __init__(self, phrases: list[str] | None = None, label_words: bool = False, threshold: float = 0.5) -> None:
        super().__init__(threshold)
        self.label_words = label_words
        more = [re.escape(phrase) for phrase in phrases or []]
        self._phrases = re.compile(rf"\b(?:{'|'.join((*_PHRASES, *more))})\b", re.IGNORECASE)

    def _scores(self, material: Material) -> list[float | None]:
        return [float(not leaks) for leaks in self.leaks(material)]

    def leaks(self, material: Material) -> list[list[str]]:
        """What betrays it, for each rationale."""
        book = material.book
        hints = _hint_patterns(book)
        own = {label: LabelMask([book.text(label)]) for label in book.labels.names} if self.label_words else {}
        leaks = []
        for rationale in material.rationales:
            text = rationale.text
            quotes = [match.group() for match in self._phrases.finditer(text)]
            plain = " ".join(words(text))
            quotes += [match.group() for hint in hints for match in hint.finditer(plain)]
            if self.label_words:
                quotes += own[rationale.label].found(text)
            leaks.append(quotes)
        return leaks


def _hint_patterns(book: PromptBook) -> list[re.Pattern[str]]:
    """The sentences of the hinted question that name the class, as patterns over plain words."""
    sentences = re.split(r"[.!?;\n]", book.prompts.hinted_question)
    return [pattern for sentence in sentences if "{label}" in sentence for pattern in _pattern(sentence, book.texts)]


def _pattern(sentence: str, texts: Iterable[str]) -> list[re.Pattern[str]]:
    lead, _, tail = (" ".join(words(part)) for part in sentence.partition("{label}"))
    # "class: {label}" alone would be found in any conclusion
    if len(f"{lead} {tail}".split()) < _FEWEST_HINT_WORDS:
        return []
    labels = "|".join(re.escape(" ".join(words(text))) for text in texts if words(text))
    parts = [re.escape(lead), f"(?:{labels})", re.escape(tail)]
    return [re.compile(rf"(?<!\w){' '.join(part for part in parts if part)}(?!\w)")] if labels else []
