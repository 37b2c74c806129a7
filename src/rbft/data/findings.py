"""What a check of a data set can find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rbft.data.records import VideoRecord

Kind = Literal[
    "missing",
    "empty",
    "unreadable",
    "damaged",
    "gave_up",
    "no_frame_rate",
    "duplicate_across_splits",
    "conflicting_labels",
    "group_across_splits",
    "label",
    "unscorable",
    "listed_twice",
    "outside",
    "too_few",
    "splits",
    "model",
    "memory",
    "odd_label",
    "odd_group",
    "near_duplicate",
    "duplicate",
    "imbalance",
    "blank",
    "reshaped",
    "short",
]
Severity = Literal["error", "warning"]

SIDES = ("train", "val", "test")
_WARNINGS = frozenset(
    {"odd_label", "odd_group", "near_duplicate", "duplicate", "imbalance", "blank", "reshaped", "short"}
)
_NAMED = 3

Sides = Mapping[str, Sequence[VideoRecord]]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Args:
        kind: name of the check that found it.
        message: what is wrong, where, and what to do.
        ids: ids of the videos concerned.
    """

    kind: Kind
    message: str
    ids: tuple[str, ...]

    @property
    def severity(self) -> Severity:
        """`error`: a run would fail, or its figures could not be trusted. `warning`: it should be known."""
        return "warning" if self.kind in _WARNINGS else "error"


def some_of(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
