"""Videos that are in a data set more than once, or that show in training what is tested."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from rbft.data.findings import SIDES, Finding, Sides, some_of
from rbft.data.labels import folded
from rbft.data.perceptual_hash import mirrored, most_alike
from rbft.data.records import VideoRecord
from rbft.data.video_facts import VideoFacts

_MOST_PAIRS = 500_000_000  # about a minute on one core, as each pair is looked at twice
_NAMED = 4


def copies(
    records: Sequence[VideoRecord], facts: Mapping[str, VideoFacts], place: Mapping[str, str]
) -> Iterator[Finding]:
    """Files of the same content.

    Args:
        records: Videos of all splits and of none.
        facts: facts of the videos, by path.
        place: The split by id; unused videos have none, and matter only where their labels say something else.
    """
    same: dict[str, list[VideoRecord]] = defaultdict(list)
    for record in records:
        if facts[record.path].decoded_frames:
            same[facts[record.path].digest].append(record)
    for group in same.values():
        ids = tuple(record.id for record in group)
        if len({record.path for record in group}) == 1:
            continue  # one file listed twice is reported as such
        copied = ", ".join(f"{record.path} ({record.label})" for record in group[:_NAMED])
        conflict = len({record.label for record in group}) > 1
        if conflict:
            yield Finding(
                "conflicting_labels", f"the same file has different labels: {copied}. Keep the right one.", ids
            )
        used = [record for record in group if record.id in place]
        sides = sorted({place[record.id] for record in used}, key=SIDES.index)
        paths = some_of(f"{record.path} ({place[record.id]})" for record in used)
        ids = tuple(record.id for record in used)
        if len(sides) > 1:
            yield Finding(
                "duplicate_across_splits",
                f"the same file is in {' and '.join(sides)}: {paths}. Keep it in "
                "one split, or give its copies one group.",
                ids,
            )
        elif len(used) > 1 and not conflict:
            yield Finding("duplicate", f"the same file counts {len(used)} times: {paths}. Keep one.", ids)


def crossing_groups(sides: Sides) -> Iterator[Finding]:
    """Groups of which some videos train and others validate or test."""
    for name, by_side in _on_several_sides(sides, lambda record: record.group):
        where = "; ".join(f"{some_of(r.path for r in part)} in {side}" for side, part in by_side.items())
        yield Finding(
            "group_across_splits",
            f"the group {name!r} is on {len(by_side)} sides, which tests on known scenes: {where}. "
            "Move it to one side, or correct the groups.",
            tuple(record.id for part in by_side.values() for record in part),
        )


def alike_groups(sides: Sides) -> Iterator[Finding]:
    """Groups on several sides whose names differ in case or word separators alone, so that they may be one."""
    for by_side in (
        found for _, found in _on_several_sides(sides, lambda record: record.group and folded(record.group))
    ):
        groups = {side: {record.group for record in part} for side, part in by_side.items()}
        names = sorted({str(name) for found in groups.values() for name in found})
        # one group on several sides is an error of its own
        if sum(map(len, groups.values())) == len(names):
            yield Finding(
                "odd_group",
                f"are {' and '.join(map(repr, names))} {len(names)} groups? They are on {len(by_side)} sides, which "
                "tests on known scenes if they are one; write it in one way then.",
                tuple(record.id for part in by_side.values() for record in part),
            )


def parts_of_one(sides: Sides) -> Iterator[Finding]:
    """Recordings of which some parts train and others validate or test; the same seconds are refused before."""
    for path, by_side in _on_several_sides(sides, lambda record: None if record.part is None else record.path):
        where = "; ".join(f"{some_of(r.video for r in part)} in {side}" for side, part in by_side.items())
        yield Finding(
            "near_duplicate",
            f"parts of the recording {path} are on {len(by_side)} sides, and neighbours look alike: {where}. "
            "Give each recording one side, or the parts that belong together one group.",
            tuple(record.id for part in by_side.values() for record in part),
        )


def _on_several_sides(
    sides: Sides, key_of: Callable[[VideoRecord], str | None]
) -> Iterator[tuple[str, dict[str, list[VideoRecord]]]]:
    """What more than one side has a record of, with its records by side; records without a key are left out."""
    by_key: dict[str, dict[str, list[VideoRecord]]] = defaultdict(lambda: defaultdict(list))
    for side, records in sides.items():
        for record in records:
            if (key := key_of(record)) is not None:
                by_key[key][side].append(record)
    yield from ((key, by_side) for key, by_side in by_key.items() if len(by_side) > 1)


def near_duplicates(
    sides: Sides, facts: Mapping[str, VideoFacts], threshold: float, notes: list[str]
) -> Iterator[Finding]:
    """For each video the most similar one of each earlier split.

    Args:
        sides: The splits, the one that trains first.
        facts: facts of the videos, by path.
        threshold: Likeness from which two clips are reported, see `rbft.data.perceptual_hash.most_alike`.
        notes: list that takes a note on what was left out.
    """
    for first, second in itertools.combinations(sides, 2):
        others = [record for record in sides[first] if facts[record.path].signature]
        copied = {facts[record.path].digest for record in others}  # exact copies are reported as such
        some = [r for r in sides[second] if facts[r.path].signature and facts[r.path].digest not in copied]
        if not some or not others:
            continue
        if len(some) * len(others) > _MOST_PAIRS:
            notes.append(
                f"near-duplicates between {first} and {second} were not sought: {len(others)} x {len(some)} videos are "
                f"more than {_MOST_PAIRS:,} pairs. data.shots makes the training split smaller."
            )
            continue
        left, right = ([facts[record.path].signature for record in side] for side in (some, others))
        best, value = most_alike(left, right)
        best_mirrored, value_mirrored = most_alike([mirrored(signature) for signature in left], right)
        for row in np.flatnonzero(np.maximum(value, value_mirrored) >= threshold):
            turned = value_mirrored[row] > value[row]
            record, other = some[row], others[(best_mirrored if turned else best)[row]]
            yield Finding(
                "near_duplicate",
                f"{record.path} ({second}) looks like {other.path} ({first}){' mirrored' if turned else ''}, likeness "
                f"{max(value[row], value_mirrored[row]):.2f}. Look at both: give videos of one scene one group, and "
                "take copies out.",
                (record.id, other.id),
            )
