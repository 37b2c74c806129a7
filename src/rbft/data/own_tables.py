"""The tables that rbft itself leaves, told by their columns, so that none is taken for a person's labels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rbft.data.formats.rows import read_table
from rbft.errors import ConfigError, DataError

ANSWERS = ("video", "predicted", "probability", "abstained", "rationale", "error")
"""Columns of what `rbft predict` leaves."""
NEXT = ("path", "start", "end", "predicted", "probability", "margin")
"""Columns of the clips to label next that `rbft suggest` leaves."""
DOUBTED = ("path", "start", "end", "label", "rather", "label_probability", "rather_probability", "judged_by")
"""Columns of the labels to look at again that `rbft suggest` leaves."""

_ANSWERS_JSON = {*ANSWERS, "top", "calibrated", "at_least", "timeline", "modified"}
_OF_RUNS = (
    {"id", "video", "label", "predicted", "probabilities", "log_likelihoods"},
    {"id", "video", "sample", "prompt_hash", "text"},
    {"id", "video", "view", "classes", "probabilities"},
)


def holds_answers(columns: Collection[str]) -> bool:
    """Whether a table with these columns is what `rbft predict` left, and nobody has added to it."""
    return {"video", "predicted", "probability"} <= {*columns} <= _ANSWERS_JSON


def is_own(columns: Collection[str]) -> bool:
    """Whether a table with these columns is one that rbft left.

    One of answers or suggestions that has other columns besides is a person's: who writes labels into it keeps them.
    """
    names = {*columns}
    return holds_answers(names) or names in ({*NEXT}, {*DOUBTED}) or any(keys <= names for keys in _OF_RUNS)


def columns_of(table: Path) -> list[str]:
    """The columns of a table, in order.

    Raises:
        DataError: The table cannot be read, or has no rows.
    """
    return list(read_table(table)[0].names)


def refuse_other_than_answers(path: Path, flag: str) -> None:
    """Refuse a file for answers where another file stands: a table of labels would no longer be found by its name.

    Args:
        path: the file for the answers.
        flag: flag that names it, for the message.

    Raises:
        ConfigError: There is a file that holds something else than answers.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        own = holds_answers(columns_of(path))
    except DataError:
        own = False
    if not own:
        raise ConfigError(f"{flag} {path}: holds something else than answers of rbft predict; name another file.")
