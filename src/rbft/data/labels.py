"""The closed set of classes of a data set, and how a class name is read aloud."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from rbft.data.records import VideoRecord
from rbft.errors import DataError

MAX_LENGTH = 100
"""Characters a label may have: more is a sentence that landed in the wrong column."""

UNLABELLED = frozenset({"unlabelled", "unlabeled", "new", "todo"})
"""Names, in lower case, that folders beside classes have whose clips have no class yet."""

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
        DataError: Fewer than two classes, a name that stands twice, or one that must not reach a prompt.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if trouble := _trouble(name):
                raise DataError(f"the label {name!r} {trouble}. Rename the class in the data set.")
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise DataError(f"the label {twice[0]!r} stands twice; name each class once.")
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
        by_text: dict[str, str] = {}
        for record in records:
            by_text.setdefault(record.label, record.path)
        if names is None:
            return cls(tuple(sorted(by_text)))
        labels = cls(tuple(names))
        for name, path in by_text.items():
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


def require_name(name: str) -> None:
    """Refuse a name that no class can have.

    Raises:
        DataError: Says what is wrong with it.
    """
    if trouble := _trouble(name):
        raise DataError(f"the label {name!r} {trouble}.")


def require_apart(names: Sequence[str], texts: Mapping[str, str]) -> None:
    """Refuse classes that a reader would take for one.

    Args:
        names: the classes.
        texts: how a class is written in prompts, where its name is not what is read.

    Raises:
        DataError: names two of them.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(texts.get(name, name)), name)
        if other != name:
            # on the screen they are equal
            alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
            how = " They differ in how Unicode writes an accent alone." if alike else ""
            raise DataError(
                f"the label {name!r} reads the same as {other!r}; give one class one spelling, or, if these are two "
                f"classes, say how they are written in model.prompts.label_texts.{how}"
            )


def odd_names(names: Iterable[str]) -> list[str]:
    """What may be no class of its own; a question for each.

    That is what tables hold where a label is missing, names of splits, numbers that are written in several ways, and
    several classes in one cell.
    """
    questions = []
    numbers: dict[float, str] = {}
    names = list(names)
    apart = {folded(name) for name in names}
    for name in names:
        parts = re.split(r"\s*[,;|+&/]\s*", name)
        joined = [part for part in parts if folded(part) in apart and any(map(str.isalpha, part))]
        if len(parts) > 1 and all(parts) and joined:
            questions.append(
                f"is {name!r} one class? {joined[0]!r} is a class, too, and a video has one class only; choose the one "
                "that counts for each of these videos."
            )
        if _NUMBER.fullmatch(name) and (other := numbers.setdefault(float(name), name)) != name:
            questions.append(
                f"are {other!r} and {name!r} two classes? They are one number; write it in one way if they are not."
            )
        if name.casefold() in _MISSING:
            questions.append(
                f"is {name!r} a class? Tables and folders hold it where a label is missing; take such rows out, or "
                "leave the folder out (data.format.skip), if it is not."
            )
        elif names_split(name):
            questions.append(
                f"is {name!r} a class? It reads like a split; if it is one, name the folders train, val and test, or "
                "say in the table which videos are for what."
            )
    return questions


def names_split(name: str) -> bool:
    """Whether a name is that of a split: 'training_set', 'Test', 'val-videos'."""
    return _SPLIT.fullmatch(name) is not None


_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_MISSING = frozenset({"nan", "none", "null", "na", "n/a", "#n/a", "nil", "undefined"}) | UNLABELLED
_SPLIT = re.compile(
    r"(?:train|test|val|valid|dev|eval)(?:ing|idation)?(?:[\s_-]*(?:set|split|data|videos|clips))?", re.IGNORECASE
)


def folded(name: str) -> str:
    """What is left of a name when case and word separators are taken away; '1-2' stays apart from '12'."""
    text = re.sub(f"[{_JOINERS}]", "", _with_signs(name)).casefold()
    text = re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", re.sub(r"[\s_-]+", "-", text))
    return text.replace(_SIGN, "-") or _normal(name)


def spoken(name: str) -> str:
    """How a class name is written in a prompt: 'ApplyEyeMakeup' becomes 'apply eye makeup', 'pull_up' 'pull up'.

    Words keep their digits ('UCF101'). Words in capitals are acronyms and stay ('TVShow' becomes 'TV show'), unless the
    whole name is in capitals and more than a short acronym ('NO_FIGHT' becomes 'no fight'). Signs stay ('-5', 'A-',
    '1-2'), and so do units after a number ('50 kHz') and a name that is nothing but signs.
    """
    pieces = [piece.replace(_SIGN, "-") for piece in re.split(r"[\s_-]+", _with_signs(name)) if piece]
    words: list[str] = []
    measures: set[str] = set()
    for before, piece in zip(["", *pieces], pieces, strict=False):
        measured = _MEASURE.fullmatch(piece) or (piece in _UNITS and re.fullmatch(r"\W*\d+([.,]\d+)?", before))
        if measured:
            measures.add(piece)
        words += [piece] if measured else _camel_words(piece)
    letters = sum(char.isalpha() for char in name)
    shouted = name.isupper() and (len(words) > 1 or (letters > 3 and not any(char.isdigit() for char in name)))
    kept = (word in measures or (_is_acronym(word) and not shouted) for word in words)
    return " ".join(word if keep else word.lower() for word, keep in zip(words, kept, strict=True)) or _normal(name)


_SIGN = "\ue000"
"""Stands for a hyphen that separates no words; no label may hold it."""
_UNITS = ("Hz", "kHz", "MHz", "GHz", "mA", "mV", "kV", "mW", "kW", "kWh", "dB", "Pa", "hPa", "kPa", "MPa", "kJ", "mL")
_MEASURE = re.compile(rf"\W*\d+(?:[.,]\d+)?(?:{'|'.join(_UNITS)})")
_SIGNS = re.compile(
    r"^-(?=[^\W_]|\.\d)"  # before the whole name
    r"|(?<=[\s_])-(?=\.?\d)"  # before a number
    r"|(?<=[^\W_])-$"  # after the whole name, as in grades
    r"|(?:(?<![\w.])|(?<=_))(?P<low>\d+(?:\.\d+)?)-(?=\d+(?:\.\d+)?(?![^\W_]))"  # between two numbers
)


def _with_signs(name: str) -> str:
    """A name with `_SIGN` for each hyphen that is a sign."""
    return _SIGNS.sub(lambda match: (match["low"] or "") + _SIGN, _normal(name).strip(" _\t"))


def _normal(name: str) -> str:
    """Compatibility forms in their plain ones; superscripts, subscripts and fractions mean something and stay."""
    kept = ("<super>", "<sub>", "<fraction>")
    composed = unicodedata.normalize("NFC", name)
    return "".join(
        char if unicodedata.decomposition(char).startswith(kept) else unicodedata.normalize("NFKC", char)
        for char in composed
    )


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
