"""The low-data protocol: which few videos train, and which validate and test, with no group on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord, check_unique, overlap
from rbft.data.shot_sampling import cut_off, take, take_keeping_back
from rbft.data.split_advice import Settings, Shortage, advise
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
    the data set states none; where too few would be left, whole groups are kept for them first, and training videos
    come from the others:

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
        draw: number of the draw; other draws give other training videos (and test videos, if no test split is stated).
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
    _check_arguments(shots, val_shots, val_fraction, pool_shots)
    check_unique(records)
    for record in records:
        labels.index(record.label)
    sides = _stated(records)
    _refuse_leaks(sides)
    settings = Settings(shots, pool_shots, val_shots, val_fraction, draw, nested)
    try:
        return _cut(sides, labels, settings)
    except Shortage as shortage:
        advice = advise(shortage, sides["train"], settings, lambda changed: _works(sides, labels, changed))
        raise DataError(advice) from None


def _stated(records: Sequence[VideoRecord]) -> dict[str, list[VideoRecord]]:
    """The videos by the side that the data set states; what states none may train."""
    return {side: [record for record in records if (record.split or "train") == side] for side in _SIDES}


def _works(sides: Mapping[str, list[VideoRecord]], labels: LabelSet, settings: Settings) -> bool:
    try:
        _cut(sides, labels, settings)
    except DataError:
        return False
    return True


def _cut(sides: Mapping[str, list[VideoRecord]], labels: LabelSet, settings: Settings) -> Splits:
    """The splits.

    Raises:
        Shortage: A class has too few videos for what is asked.
    """
    pool, val, test = (sides[side] for side in _SIDES)
    shots, draw = settings.shots, settings.draw
    made = {"train", *(side for side in ("val", "test") if not sides[side])}
    unused: list[VideoRecord] = []

    if shots is None:
        rest = pool
        if not test:
            test, rest = cut_off(rest, settings.val_fraction, draw, "test")
        if not val:
            val, dropped, rest = _validation(rest, labels, settings, settings.val_fraction, leave=1)
            unused += dropped
        train = rest
    else:
        most = settings.pool_shots or shots
        key = "data.shots" if most == shots else "data.pool_shots"
        _require_count(key, most, pool, labels, "training videos")
        fraction = None if test else settings.val_fraction
        leave = 0 if test else 1

        def suffices(rest: list[VideoRecord]) -> bool:
            """Whether validation and test can be had from the groups that training leaves."""
            if not val:
                try:
                    _, _, rest = _validation(rest, labels, settings, fraction, leave=leave, at_most=most)
                except Shortage:
                    return False
            return bool(test) or _scarce(rest, labels, 1) is None

        wanted = 0 if val else (settings.val_shots or 0)
        if not val and settings.val_shots is None and fraction and _groups_of_scarcest(pool, labels) > 2:
            wanted = 1  # validation by a fraction is worth a group, where there are enough
        salt = () if settings.nested else ("pool", most)
        kept = take_keeping_back(pool, labels, most, suffices, draw, *salt, keep=(leave, wanted))
        drawn = take(kept.taken + kept.rest, labels, shots, draw, *(() if settings.nested else ("shots", shots)))
        train = drawn.taken
        unused += drawn.rest + drawn.untouched
        rest = kept.untouched
        if not val:
            val, dropped, rest = _validation(rest, labels, settings, fraction, leave=leave, at_most=most)
            unused += dropped
        if test:
            unused += rest
        else:
            test = rest

    splits = _splits(train, val, test, unused, sort=made)
    _refuse_overlaps({side: getattr(splits, side) for side in _SIDES})
    _require_classes(splits, labels, pool, "test" not in made)
    return splits


def _check_arguments(shots: int | None, val_shots: int | None, val_fraction: float, pool_shots: int | None) -> None:
    if shots is not None and shots < 1:
        raise ConfigError(f"data.shots: {shots} must be at least 1; leave it out to train on all videos.")
    if pool_shots is not None and (shots is None or pool_shots < shots):
        raise ConfigError(f"data.pool_shots: {pool_shots} must be at least data.shots ({shots}).")
    if val_shots is not None and val_shots < 0:
        raise ConfigError(f"data.val_shots: {val_shots} must not be negative.")
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"data.val_fraction: {val_fraction} must be at least 0 and below 1.")


def _validation(
    records: list[VideoRecord],
    labels: LabelSet,
    settings: Settings,
    fraction: float | None,
    *,
    leave: int,
    at_most: int = 0,
) -> tuple[list[VideoRecord], list[VideoRecord], list[VideoRecord]]:
    """Validation videos, the rest of their groups, and the records of other groups.

    With neither `val_shots` nor `fraction`, each class gives `at_most` videos or all it has. Where `val_shots` are
    asked for, other groups keep `leave` videos of each class if there is a way.

    Raises:
        Shortage: A class has fewer than `val_shots` videos.
    """
    shots, draw = settings.val_shots, settings.draw
    if shots is None and fraction is not None:
        val, others = cut_off(records, fraction, draw, "val")
        return val, [], others
    if shots is None:
        counts = Counter(record.label for record in records)
        validation = take(records, labels, {name: min(at_most, counts[name]) for name in labels.names}, draw, "val")
    else:
        _require_count("data.val_shots", shots, records, labels, "videos left for validation")

        def suffices(rest: list[VideoRecord]) -> bool:
            return _scarce(rest, labels, leave) is None

        validation = take_keeping_back(records, labels, shots, suffices, draw, "val", keep=(leave,))
    return validation.taken, validation.rest, validation.untouched


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
            # what people have put on two sides of a recording is theirs to say, but for the same seconds
            group = ("id", record.id) if record.group is None else record.source
            other, path = first.setdefault(group, (side, record.video))
            if other != side:
                leaks.setdefault(group, f"{group[1]!r} ({path} in {other}, {record.video} in {side})")
    if leaks:
        shown = "; ".join(list(leaks.values())[:_SHOWN]) + ("; ..." if len(leaks) > _SHOWN else "")
        raise DataError(
            f"{len(leaks)} groups are on two sides of the stated splits, which tests on known scenes: {shown}. "
            "Move each group to one side, or correct the groups."
        )
    _refuse_overlaps(sides)


def _refuse_overlaps(sides: Mapping[str, Sequence[VideoRecord]]) -> None:
    """Refuse the same seconds of a recording on two sides."""
    parts = [(record, side) for side, records in sides.items() for record in records if record.part is not None]
    parts.sort(key=lambda entry: (entry[0].path, entry[0].part))
    for place, (part, side) in enumerate(parts):
        for other, beside in parts[place + 1 :]:
            # after the first one that begins later, all do
            if not overlap(part, other):
                break
            if side != beside:
                raise DataError(
                    f"{part.video} ({side}) and {other.video} ({beside}) show the same seconds, which tests on what "
                    "was trained on. Move them to one side, correct start and end, or give both one group."
                )


def _scarce(records: Sequence[VideoRecord], labels: LabelSet, need: int) -> str | None:
    """The class with the fewest of the records, if these are fewer than needed."""
    counts = Counter(record.label for record in records)
    scarce = min(labels.names, key=lambda name: counts[name])
    return scarce if counts[scarce] < need else None


def _groups_of_scarcest(records: Sequence[VideoRecord], labels: LabelSet) -> int:
    """Groups of the class that has the fewest."""
    groups: dict[str, set[tuple[str, str]]] = {name: set() for name in labels.names}
    for record in records:
        groups[record.label].add(record.source)
    return min(len(groups_of_class) for groups_of_class in groups.values())


def _require_count(key: str, want: int, records: Sequence[VideoRecord], labels: LabelSet, what: str) -> None:
    scarce = _scarce(records, labels, want)
    if scarce is not None:
        have = sum(record.label == scarce for record in records)
        raise Shortage(f"{key}: the class {scarce!r} has {have} {what}, {want} are asked for.", scarce)


def _require_classes(splits: Splits, labels: LabelSet, pool: Sequence[VideoRecord], test_stated: bool) -> None:
    for side, part in (("train", splits.train), ("test", splits.test)):
        if side == "train" and not pool and splits.test:
            continue  # every video is stated as val or test: nothing was meant to train
        counts = Counter(record.label for record in part)
        scarce = next((name for name in labels.names if not counts[name]), None)
        if scarce is None:
            continue
        total = sum(record.label == scarce for record in pool)
        message = f"the class {scarce!r} has no video in {side}."
        if side == "test" and test_stated:
            raise DataError(
                f"{message} The data set's own test split lacks it: add videos of it there, or leave the class out."
            )
        if side == "test":
            message += f" Training, validation and the groups they use take all of its {total}."
        else:
            message += f" It has {total} that may train."
        raise Shortage(message, scarce)
