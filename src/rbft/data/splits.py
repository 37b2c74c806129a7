"""The low-data protocol: which few videos train, and which validate and test, with no group on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbft.data.draws import cut_off, group_of, take
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord, check_unique
from rbft.errors import ConfigError, DataError

_SIDES = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True)
class Splits:
    """The videos of each role; `unused` are labelled, but must neither train nor be tested on."""

    train: tuple[VideoRecord, ...]
    val: tuple[VideoRecord, ...]
    test: tuple[VideoRecord, ...]
    unused: tuple[VideoRecord, ...]

    def to_json(self) -> dict[str, list[str]]:
        """The ids of train, val and test as plain JSON, so that another tool can use the same videos."""
        return {side: [record.id for record in getattr(self, side)] for side in _SIDES}

    @classmethod
    def from_json(cls, document: object, records: Sequence[VideoRecord]) -> Splits:
        """The splits that `to_json` wrote; records it does not name are unused.

        Raises:
            DataError: It is no such document, or names an id that is unknown, twice there, or of a group on two sides.
        """
        check_unique(records)
        if not isinstance(document, Mapping) or set(document) != set(_SIDES):
            raise DataError(f"a split document is an object with the keys {', '.join(_SIDES)}, each a list of ids.")
        known = {record.id: record for record in records}
        sides: dict[str, list[VideoRecord]] = {}
        named: set[str] = set()
        for side in _SIDES:
            ids = document[side]
            if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                raise DataError(f"split document: {side!r} must be a list of ids.")
            for name in ids:
                if name not in known:
                    raise DataError(f"split document: {name!r} in {side!r} is no video of this data set.")
                if name in named:
                    raise DataError(f"split document: {name!r} stands twice; keep it in one split.")
                named.add(name)
            sides[side] = [known[name] for name in ids]
        _refuse_leaks(sides)
        return _splits(**sides, unused=[record for record in records if record.id not in named], sort=())


def make_splits(
    records: Sequence[VideoRecord],
    labels: LabelSet,
    *,
    shots: int | None,
    draw: int = 0,
    val_shots: int | None = None,
    val_fraction: float = 0.2,
    pool_shots: int | None = None,
    nested: bool = True,
) -> Splits:
    """Cut a data set to few labelled videos; the same for the same records and draw, whatever the records' order.

    A test or validation split that the data set states is kept as it is. The other videos are the pool, from which
    training videos are drawn: one of each class from each of the shuffled groups in turn, then second ones, until every
    class has enough. What a used group has besides is unused. The groups that are left give validation and test, where
    the data set states none:

    - Test is stated, validation is not: validation takes `val_shots` a class; by default as many as `pool_shots`, or
      what a class has left. The rest is unused.
    - Neither is stated: validation takes `val_shots` a class, or about `val_fraction` of each class by whole groups.
      Test takes the others.
    - Validation is stated, test is not: test takes all.

    Without `shots`, the pool is cut by whole groups: a test split that is not stated takes about `val_fraction` of each
    class, then a validation split that is not stated takes `val_shots` or about `val_fraction` of each class of what
    remains, and all others train. A data set that states every video as validation or test trains on none.

    Args:
        records: The videos of the data set.
        labels: Its classes.
        shots: Training videos of each class, exactly; None trains on all.
        draw: Which draw; other draws give other training videos (and others to test on, if no test split is stated).
        val_shots: Validation videos of each class, exactly.
        val_fraction: In [0, 1).
        pool_shots: At least `shots`, which is the default. The groups that a draw of so many shots uses are kept out
            of validation and test, so that these are the same for all `shots` up to it.
        nested: Whether fewer shots are a subset of more shots; otherwise each number of shots is drawn anew (from the
            groups that `pool_shots` keeps, if it is given).

    Raises:
        ConfigError: A number is out of its range.
        DataError: An id, file or group is on two sides of the stated splits, a class has too few videos for what is
            asked, or has none to train or to test on.
    """
    most = _check_arguments(shots, val_shots, val_fraction, pool_shots)
    check_unique(records)
    for record in records:
        labels.index(record.label)
    pool = [record for record in records if record.split in (None, "train")]
    val = [record for record in records if record.split == "val"]
    test = [record for record in records if record.split == "test"]
    _refuse_leaks({"train": pool, "val": val, "test": test})
    stated = tuple(side for side, part in (("val", val), ("test", test)) if part)
    unused: list[VideoRecord] = []

    if shots is None or most is None:
        rest = pool
        if not test:
            test, rest = cut_off(rest, val_fraction, draw, "test")
        if not val:
            val, dropped, rest = _validation(rest, labels, val_shots, val_fraction, draw)
            unused += dropped
        train = rest
    else:
        key = "data.shots" if most == shots else "data.pool_shots"
        _require_count(key, most, pool, labels, "training videos")
        kept = take(pool, labels, most, draw, *(() if nested else ("pool", most)))
        drawn = take(kept.taken + kept.rest, labels, shots, draw, *(() if nested else ("shots", shots)))
        train = drawn.taken
        unused += drawn.rest + drawn.untouched
        rest = kept.untouched
        if not val:
            fraction = None if test else val_fraction
            val, dropped, rest = _validation(rest, labels, val_shots, fraction, draw, at_most=most)
            unused += dropped
        if test:
            unused += rest
        else:
            test = rest

    splits = _splits(train, val, test, unused, sort=set(_SIDES) - set(stated))
    _require_classes(splits, labels, pool, "test" in stated)
    return splits


def _check_arguments(
    shots: int | None, val_shots: int | None, val_fraction: float, pool_shots: int | None
) -> int | None:
    """The shots whose groups are kept from testing; None if there is no number of shots."""
    if shots is not None and shots < 1:
        raise ConfigError(f"data.shots: {shots} must be at least 1; leave it out to train on all videos.")
    if pool_shots is not None and (shots is None or pool_shots < shots):
        raise ConfigError(f"data.pool_shots: {pool_shots} must be at least data.shots ({shots}).")
    if val_shots is not None and val_shots < 0:
        raise ConfigError(f"data.val_shots: {val_shots} must not be negative.")
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"data.val_fraction: {val_fraction} must be at least 0 and below 1.")
    return pool_shots if pool_shots is not None else shots


def _validation(
    records: list[VideoRecord],
    labels: LabelSet,
    shots: int | None,
    fraction: float | None,
    draw: int,
    at_most: int = 0,
) -> tuple[list[VideoRecord], list[VideoRecord], list[VideoRecord]]:
    """Validation videos, the rest of their groups, and the records of other groups.

    With neither `shots` nor `fraction`, each class gives `at_most` videos or all it has.
    """
    if shots is None and fraction is not None:
        val, others = cut_off(records, fraction, draw, "val")
        return val, [], others
    counts = Counter(record.label for record in records)
    if shots is not None:
        _require_count("data.val_shots", shots, records, labels, "videos left for validation")
    want = {name: min(at_most, counts[name]) if shots is None else shots for name in labels.names}
    found = take(records, labels, want, draw, "val")
    return found.taken, found.rest, found.untouched


def _splits(
    train: Sequence[VideoRecord],
    val: Sequence[VideoRecord],
    test: Sequence[VideoRecord],
    unused: Sequence[VideoRecord],
    sort: set[str] | tuple[str, ...],
) -> Splits:
    """Splits whose made parts are in the order of ids; stated ones keep the data set's order."""
    parts = {"train": train, "val": val, "test": test}
    ordered = {
        side: tuple(sorted(part, key=lambda record: record.id) if side in sort else part)
        for side, part in parts.items()
    }
    return Splits(**ordered, unused=tuple(sorted(unused, key=lambda record: record.id)))


def _refuse_leaks(sides: Mapping[str, Sequence[VideoRecord]]) -> None:
    first: dict[tuple[str, str], tuple[str, str]] = {}
    leaks: dict[tuple[str, str], str] = {}
    for side, records in sides.items():
        for record in records:
            group = group_of(record)
            other, path = first.setdefault(group, (side, record.path))
            if other != side:
                leaks.setdefault(group, f"{group[1]!r} ({path} in {other}, {record.path} in {side})")
    if leaks:
        shown = "; ".join(list(leaks.values())[:_SHOWN]) + ("; ..." if len(leaks) > _SHOWN else "")
        raise DataError(
            f"{len(leaks)} groups are on two sides of the stated splits, which tests on known scenes: {shown}. "
            "Move each group to one side, or correct the groups."
        )


def _require_count(key: str, want: int, records: Sequence[VideoRecord], labels: LabelSet, what: str) -> None:
    counts = Counter(record.label for record in records)
    scarce = min(labels.names, key=lambda name: counts[name])
    if counts[scarce] < want:
        raise DataError(
            f"{key}: the class {scarce!r} has {counts[scarce]} {what}, {want} are asked for. Lower {key} to at most "
            f"{counts[scarce]}, add videos of the class, or leave it out."
        )


def _require_classes(splits: Splits, labels: LabelSet, pool: Sequence[VideoRecord], test_stated: bool) -> None:
    for side, part in (("train", splits.train), ("test", splits.test)):
        if side == "train" and not pool and splits.test:
            continue  # every video is stated as val or test: nothing was meant to train
        counts = Counter(record.label for record in part)
        scarce = next((name for name in labels.names if not counts[name]), None)
        if scarce is None:
            continue
        total = sum(record.label == scarce for record in pool)
        if side == "test" and test_stated:
            advice = "The data set's own test split lacks it: add videos of it there, or leave the class out."
        elif side == "test":
            advice = (
                f"Training, validation and the groups they use take all of its {total}. Lower data.shots, "
                "data.pool_shots, data.val_shots or data.val_fraction (above 0 without data.shots), or add videos."
            )
        else:
            advice = f"It has {total} that may train. Lower what validation and test take, or add videos."
        raise DataError(f"the class {scarce!r} has no video in {side}. {advice}")
