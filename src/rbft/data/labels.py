"""The closed set of classes of a data set, and how a class name is read aloud."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from rbft.data.records import VideoRecord
from rbft.errors import DataError

MAX_LENGTH = 100
"""Characters a label may have: more is a sentence that landed in the wrong column."""

# Zero-width joiners belong to Persian and Indic spelling; every other format character only hides or reorders text.
_JOINERS = "\u200c\u200d"
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# The shapes chat templates and tokenizers give their control tokens: <|im_end|>, <video>, </s>, <<SYS>>, [INST], [PAD].
SPECIAL_TOKEN = re.compile(r"<\||\|>|<</?\w+>>|</?[A-Za-z_][\w:.-]*/?>|\[/?[A-Z][A-Z_]+\d*\]")


@dataclass(frozen=True)
class LabelSet:
    """The classes a video may have, in a fixed order.

    Labels reach the model's prompt, so a label that could act as one of its control tokens is refused.

    Args:
        names: The class names: in the data set's official order if it states one, else sorted.

    Raises:
        DataError: Fewer than two classes, two names that read the same, or a name that must not reach a prompt.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if trouble := _trouble(name):
                raise DataError(f"the label {name!r} {trouble}. Rename the class in the data set.")
        seen: dict[str, str] = {}
        for name in self.names:
            if other := seen.get(folded(name)):
                how = "stands twice" if other == name else f"reads the same as {other!r}"
                raise DataError(f"the label {name!r} {how}; give one class one spelling.")
            seen[folded(name)] = name
        if len(self.names) < 2:
            raise DataError(f"a classification needs at least two classes, the data set has {list(self.names)}.")

    @classmethod
    def from_records(cls, records: Iterable[VideoRecord], names: Sequence[str] | None = None) -> LabelSet:
        """The classes of a data set.

        Args:
            records: Its videos.
            names: The official order; None sorts the labels that occur.

        Raises:
            DataError: A video's label is not among `names`, or as for the class itself.
        """
        found: dict[str, str] = {}
        for record in records:
            found.setdefault(record.label, record.path)
        if names is None:
            return cls(tuple(sorted(found)))
        labels = cls(tuple(names))
        for name, path in found.items():
            if name not in labels._positions:
                raise DataError(f"{path}: {labels._unknown(name)}")
        return labels

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The position of a class.

        Raises:
            DataError: There is no such class; names the nearest.
        """
        try:
            return self._positions[name]
        except KeyError:
            raise DataError(self._unknown(name)) from None

    def __len__(self) -> int:
        return len(self.names)

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"the label {name!r} is none of the {len(self)} classes{hint}"


def _trouble(name: str) -> str | None:
    plain = unicodedata.normalize("NFKC", name)
    if not plain.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with white space"
    if len(name) > MAX_LENGTH:
        return f"has {len(name)} characters, {MAX_LENGTH} are the most"
    if any(unicodedata.category(char) in _FORBIDDEN and char not in _JOINERS for char in name):
        return "holds a line break, a control character or an invisible one"
    if match := SPECIAL_TOKEN.search(plain):
        return f"holds {match.group()!r}, which a model could take for a control token"
    return None


def folded(name: str) -> str:
    """What is left of a name when case and word separators are taken away; '1-2' stays apart from '12'."""
    text = re.sub(f"[{_JOINERS}]", "", unicodedata.normalize("NFKC", name)).casefold()
    return re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", re.sub(r"[\s_-]+", "-", text))


def spoken(name: str) -> str:
    """How a class name is written in a prompt: 'ApplyEyeMakeup' becomes 'apply eye makeup', 'pull_up' 'pull up'.

    Words keep their digits ('UCF101'). Words in capitals are acronyms and stay ('TVShow' becomes 'TV show'), unless the
    whole name is in capitals and more than a short acronym ('NO_FIGHT' becomes 'no fight').
    """
    pieces = re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).strip(" _-\t"))
    words = [word for piece in pieces for word in _camel_words(piece)]
    letters = sum(char.isalpha() for char in name)
    shouted = name.isupper() and (len(words) > 1 or (letters > 3 and not any(char.isdigit() for char in name)))
    return " ".join(word if _is_acronym(word) and not shouted else word.lower() for word in words)


def _is_acronym(word: str) -> bool:
    return len(word) > 1 and word.isupper()


def _camel_words(piece: str) -> list[str]:
    """Split where a capital starts a word: after a small letter, or before a small letter ('TVShow', '3DPrint')."""
    starts = [0]
    for i in range(1, len(piece)):
        before, here, after = piece[i - 1], piece[i], piece[i + 1 : i + 2]
        if here.isupper() and (before.islower() or (before.isalnum() and after.islower())):
            starts.append(i)
    return [piece[start:end] for start, end in zip(starts, [*starts[1:], len(piece)], strict=True) if piece]
