"""Drawing videos by groups in an order that depends on nothing but their names and the draw."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord


def _rank(*parts: str | int) -> bytes:
    """A place in a shuffled order that depends on nothing but the parts (no generator state, no order of input)."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _shuffled(records: Sequence[VideoRecord], *salt: str | int) -> list[list[VideoRecord]]:
    """The groups in a shuffled order, each with its records in a shuffled order."""
    groups: dict[tuple[str, str], list[VideoRecord]] = {}
    for record in records:
        groups.setdefault(record.source, []).append(record)
    order = sorted(groups, key=lambda name: _rank(*salt, *name))
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda record: _rank(*salt, "record", record.id))
    return [groups[group] for group in order]


@dataclass(frozen=True)
class Taken:
    """What a walk over groups took, what else the used groups hold, and the groups it did not touch."""

    taken: list[VideoRecord]
    rest: list[VideoRecord]
    untouched: list[VideoRecord]


def take(records: Sequence[VideoRecord], labels: LabelSet, count: int | Mapping[str, int], *salt: str | int) -> Taken:
    """Take a number of videos of each class: one of each group before a second of any.

    Clips of one group show one scene, so a few shots from as many scenes as there are say more than the same number
    from one. Each class gets the first of its videos along one fixed order, so a smaller count takes a subset.
    """
    need = {name: count if isinstance(count, int) else count[name] for name in labels.names}
    groups = _shuffled(records, *salt)
    turns: list[tuple[int, int, VideoRecord]] = []
    for place, group in enumerate(groups):
        seen: Counter[str] = Counter()
        for record in group:
            turns.append((seen[record.label], place, record))
            seen[record.label] += 1
    taken: dict[str, VideoRecord] = {}
    used: set[int] = set()
    for _, place, record in sorted(turns, key=lambda turn: turn[:2]):
        if need[record.label] > 0:
            need[record.label] -= 1
            taken[record.id] = record
            used.add(place)
    left = [[record for record in group if record.id not in taken] for group in groups]
    return Taken(
        list(taken.values()),
        [record for place, group in enumerate(left) if place in used for record in group],
        [record for place, group in enumerate(left) if place not in used for record in group],
    )


def take_keeping_back(
    records: Sequence[VideoRecord],
    labels: LabelSet,
    count: int | Mapping[str, int],
    suffice: Callable[[list[VideoRecord]], bool],
    *salt: str | int,
    keep: Sequence[int],
) -> Taken:
    """As `take`, but where few groups would all be used, whole groups are kept back first.

    Where the groups that `take` leaves untouched suffice, this is `take`. Otherwise groups are kept back until they
    suffice, those first that fewer videos would use last; which ones does not depend on `count`, so that a smaller
    count still takes a subset.

    Args:
        records: To take from.
        labels: The classes.
        count: number of records of each class.
        suffice: Whether untouched records are enough for what else they must give.
        salt: values that seed the order.
        keep: Videos of each class that each of the later sides needs, a number a side; no group serves two of them.

    Returns:
        What was taken; as from `take` if no choice of groups was found.
    """
    chosen = take(records, labels, count, *salt)
    if suffice(chosen.untouched):
        return chosen
    groups = _used_last_first(_shuffled(records, *salt))
    kept: list[list[VideoRecord]] = []
    sizes: dict[str, list[int]] = defaultdict(list)
    for group in groups:
        counts = Counter(record.label for record in group)
        if any(not _enough(sizes[name], keep) for name in counts):
            kept.append(group)
            for name, size in counts.items():
                sizes[name].append(size)
    kept_records = [record for group in kept for record in group]
    ids = {record.id for record in kept_records}
    others = [record for record in records if record.id not in ids]
    left = Counter(record.label for record in others)
    wanted = {name: count if isinstance(count, int) else count[name] for name in labels.names}
    if any(left[name] < number for name, number in wanted.items()):
        return chosen
    taken = take(others, labels, count, *salt)
    untouched = kept_records + taken.untouched
    return Taken(taken.taken, taken.rest, untouched) if suffice(untouched) else chosen


def _used_last_first(groups: Sequence[list[VideoRecord]]) -> list[list[VideoRecord]]:
    """The groups by the smallest number of videos a class for which `take` would use them, largest first."""
    seen: Counter[str] = Counter()
    first_use = []
    for group in groups:
        names = {record.label for record in group}
        first_use.append(min(seen[name] for name in names))
        seen.update(names)
    order = sorted(range(len(groups)), key=lambda place: (-first_use[place], -place))
    return [groups[place] for place in order]


def _enough(sizes: Sequence[int], keep: Sequence[int]) -> bool:
    """Whether groups that hold so many videos of a class can be dealt out to sides that need so many each."""
    free = sorted(sizes)
    for need in sorted(keep):
        got = 0
        while got < need and free:
            # the smallest group that does, or the largest
            got += free.pop(next((place for place, size in enumerate(free) if got + size >= need), -1))
        if got < need:
            return False
    return True


def cut_off(
    records: list[VideoRecord], fraction: float, draw: int, side: str
) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """Cut off about a fraction of each class by whole groups, but never the last of a class; (part, others)."""
    left = Counter(record.label for record in records)
    need = Counter({name: max(1, round(fraction * count)) for name, count in left.items()} if fraction > 0 else {})
    part: list[VideoRecord] = []
    waiting: list[list[VideoRecord]] = []

    def move(group: list[VideoRecord], counts: Counter[str]) -> bool:
        if any(left[name] <= count for name, count in counts.items()):
            return False
        part.extend(group)
        left.subtract(counts)
        need.subtract(counts)
        return True

    for group in _shuffled(records, draw, side):
        counts = Counter(record.label for record in group)
        wanted = sum(min(count, max(0, need[name])) for name, count in counts.items())
        # a group that would mostly overshoot is left for the classes that find no better one
        if 2 * wanted <= len(group) or not move(group, counts):
            waiting.append(group)
    for group in sorted(waiting, key=len):
        counts = Counter(record.label for record in group)
        present = {record.label for record in part}
        if any(need[name] > 0 and name not in present for name in counts):
            move(group, counts)
    chosen = {record.id for record in part}
    return part, [record for record in records if record.id not in chosen]
