"""What becomes of videos that cannot be read: nothing silently, and never another class in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.errors import DataError

Policy = Literal["error", "skip", "replace_same_class"]

_SIDES = ("train", "val", "test")
_MOST_BAD = 0.01
_COUNTED_FROM = 100  # videos of a split; below, one bad video is more than the share by itself
_SHOWN = 5
_KEY = "data.on_bad_video"


def apply_policy(
    splits: Splits,
    labels: LabelSet,
    bad: Mapping[str, str],
    policy: Policy,
    *,
    shots: int | None = None,
    pool: Sequence[VideoRecord] | None = None,
) -> tuple[Splits, tuple[VideoRecord, ...]]:
    """Take unreadable videos out of the splits.

    - `error`: refuse.
    - `skip`: those of train and val become unused.
    - `replace_same_class`: as `skip`, and each one of train is replaced by the next readable video of its class in
      `pool` that is in no split, may train, and shares no group with val or test.

    Unreadable test videos are returned apart in either case: they count as wrong, so that a result does not improve by
    what cannot be read.

    Args:
        splits: Before.
        labels: The classes.
        bad: By id: why a video cannot be read. A video of `pool` that is not named is taken to be readable.
        policy: what to do about them.
        shots: Training videos that every class must keep; None: at least one, where there is a training split.
        pool: Candidates in order of preference; None: the unused videos.

    Returns:
        The splits without unreadable videos, and the unreadable videos of test.

    Raises:
        DataError: The policy is `error` and a video is bad; or, under any policy, more than 1 % of a split of at least
            100 videos are, a class of train keeps too few videos, or none is left to take a bad one's place.
    """
    broken = {side: [record for record in getattr(splits, side) if record.id in bad] for side in _SIDES}
    every = [record for side in _SIDES for record in broken[side]]
    if not every:
        return splits, ()
    if policy == "error":
        total = sum(len(getattr(splits, side)) for side in _SIDES)
        raise DataError(
            f"{len(every)} of {total} videos cannot be read:\n  {_listed(every, bad)}\nReplace them, take them out of "
            f"the data set, or set {_KEY} to skip or replace_same_class."
        )
    for side, records in broken.items():
        size = len(getattr(splits, side))
        if size >= _COUNTED_FROM and len(records) > _MOST_BAD * size:
            raise DataError(
                f"{len(records)} of {size} {side} videos cannot be read, more than {_MOST_BAD:.0%}; the data set "
                f"itself needs repair, which {_KEY}: {policy} does not give:\n  {_listed(records, bad)}"
            )
    kept = {side: tuple(r for r in getattr(splits, side) if r.id not in bad) for side in _SIDES}
    unused = splits.unused
    train = kept["train"]
    if policy == "replace_same_class":
        substitutes = _substitutes(splits, bad, broken["train"], unused if pool is None else pool)
        train = tuple(substitutes.get(r.id, r) for r in splits.train)
        taken = {record.id for record in substitutes.values()}
        unused = tuple(record for record in unused if record.id not in taken)
    _require_shots(train, labels, bad, broken["train"], shots)
    unused = tuple(sorted((*unused, *broken["train"], *broken["val"]), key=lambda record: record.id))
    return replace(splits, train=train, val=kept["val"], test=kept["test"], unused=unused), tuple(broken["test"])


def _substitutes(
    splits: Splits, bad: Mapping[str, str], broken: Sequence[VideoRecord], pool: Sequence[VideoRecord]
) -> dict[str, VideoRecord]:
    """A readable video for each broken one of train, by the broken one's id."""
    in_a_split = {record.id for side in _SIDES for record in getattr(splits, side)}
    held_out = {record.source for record in (*splits.val, *splits.test)}
    candidates = [
        record
        for record in pool
        if record.id not in bad
        and record.id not in in_a_split
        and record.split in (None, "train")
        and record.source not in held_out
    ]
    substitutes: dict[str, VideoRecord] = {}
    taken: set[str] = set()
    for record in broken:
        substitute = next((c for c in candidates if c.label == record.label and c.id not in taken), None)
        if substitute is None:
            raise DataError(
                f"{record.path}: {bad[record.id]}; the class {record.label!r} has no unused readable video left to "
                f"take its place. Repair or add videos of the class, lower data.shots, or set {_KEY} to skip."
            )
        taken.add(substitute.id)
        substitutes[record.id] = substitute
    return substitutes


def _require_shots(
    train: Sequence[VideoRecord],
    labels: LabelSet,
    bad: Mapping[str, str],
    broken: Sequence[VideoRecord],
    shots: int | None,
) -> None:
    counts = Counter(record.label for record in train)
    for name in labels.names:
        lost = [record for record in broken if record.label == name]
        if lost and counts[name] < (shots or 1):
            raise DataError(
                f"the class {name!r} keeps {counts[name]} of {shots or 1} training videos; these cannot be read:\n"
                f"  {_listed(lost, bad)}\nRepair them, lower data.shots, or set {_KEY} to replace_same_class."
            )


def _listed(records: Sequence[VideoRecord], bad: Mapping[str, str]) -> str:
    shown = [f"{record.path}: {bad[record.id]}" for record in records[:_SHOWN]]
    return "\n  ".join(shown) + (f"\n  ... and {len(records) - _SHOWN} more" if len(records) > _SHOWN else "")
