"""What is wrong with a data set, found before anything is trained: files, copies, leaks, labels, counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import get_args

from rbft.data.check_report import CheckReport
from rbft.data.findings import SIDES, Finding, Kind, Sides, some_of
from rbft.data.labels import LabelSet, folded, odd_names, require_apart
from rbft.data.leaks import alike_groups, copies, crossing_groups, near_duplicates, parts_of_one
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.data.video_facts import VideoFacts
from rbft.errors import DataError
from rbft.video.sampling import FrameSampling


def check_dataset(
    root: Path,
    records: Sequence[VideoRecord],
    splits: Splits | DataError,
    labels: LabelSet | DataError,
    facts: Mapping[str, VideoFacts],
    *,
    shots: int | None = None,
    sampling: FrameSampling | None = None,
    near_duplicate: float = 0.85,
    imbalance: float = 3.0,
    label_texts: Mapping[str, str] | None = None,
) -> CheckReport:
    """Find everything that is wrong at once.

    Copies are found by content; near-duplicates (re-encoded, rescaled or trimmed a little, or the same scene before the
    same camera) by `rbft.data.perceptual_hash`, which is no proof: they are warnings.

    Args:
        root: The data root.
        records: every labelled video.
        splits: Which videos train, validate and test; or why there is no answer, and then the splits that the
            records themselves state are checked, with all other videos for training.
        labels: The classes, or why there are none.
        facts: By path: of every video of train, val and test, and of others as far as they are known.
        shots: Training videos that every class must have; None: at least one.
        sampling: Which frames will be taken; None leaves out what depends on it.
        near_duplicate: Likeness from which clips of two splits are reported.
        imbalance: Ratio of the largest to the smallest class of a split from which it is reported.
        label_texts: how classes are written in prompts, where their names are not what is read.

    Raises:
        ValueError: Facts of a video of train, val or test are missing.
    """
    sides = _sides(records, splits)
    used = [record for side in sides.values() for record in side]
    for record in used:
        if record.path not in facts:
            raise ValueError(f"no facts of {record.path}: survey all videos of train, val and test")
    names = labels.names if isinstance(labels, LabelSet) else tuple(sorted({record.label for record in records}))
    place = {record.id: side for side, part in sides.items() for record in part}
    known = [record for record in records if record.path in facts]
    notes: list[str] = []

    findings = [
        *_bad_files(known, facts),
        *_listed_twice(records),
        *copies(known, facts, place),
        *crossing_groups(sides),
        *alike_groups(sides),
        *near_duplicates(sides, facts, near_duplicate, notes),
        *_blank(used, facts),
        *_reshaped(used, facts),
        *_outside(used, facts),
        *parts_of_one(sides),
        *([] if sampling is None else _frames(sides, facts, sampling)),
    ]
    findings += [Finding("odd_label", question, ()) for question in odd_names(names)]
    texts = label_texts or {}
    refusal = _refusal(labels, texts)
    if refusal is not None:
        meant: dict[str, str] = {}
        findings += _labels(records, refusal, meant, texts)
        # counted as what they will be once they are corrected; a label that stands for no other class is left out
        names = tuple(dict.fromkeys(meant[name] for name in names if name in meant))
        records = _as_meant(records, meant)
        sides = {side: _as_meant(part, meant) for side, part in sides.items()}
        notes.append("classes were compared by their number of videos as if the labels to correct were corrected.")
    findings += _too_few(sides, records, names, facts, shots)
    findings += _imbalance(sides, names, imbalance, shots)
    if isinstance(splits, DataError) and not _explained(findings, sides, names, shots):
        findings.append(Finding("splits", str(splits), ()))
    order = {kind: number for number, kind in enumerate(get_args(Kind))}
    return CheckReport(
        root=str(root),
        findings=tuple(sorted(findings, key=lambda finding: order[finding.kind])),
        counts={side: _counts(part, names) for side, part in sides.items()},
        ranges=_ranges([facts[record.path] for record in used]),
        notes=tuple(notes),
    )


def _sides(records: Sequence[VideoRecord], splits: Splits | DataError) -> Sides:
    if isinstance(splits, Splits):
        return {side: getattr(splits, side) for side in SIDES}
    return {side: [record for record in records if (record.split or "train") == side] for side in SIDES}


def _explained(findings: Iterable[Finding], sides: Sides, names: Sequence[str], shots: int | None) -> bool:
    """Whether the refusal of the splits is among the findings already, in more detail."""
    kinds = {"label", "listed_twice", "group_across_splits"} & {finding.kind for finding in findings}
    return bool(kinds) or any(count < (shots or 1) for count in _counts(sides["train"], names).values())


def _counts(records: Iterable[VideoRecord], names: Sequence[str]) -> dict[str, int]:
    counts = Counter(record.label for record in records)
    return {name: counts[name] for name in names}


def _ranges(facts: Iterable[VideoFacts]) -> dict[str, tuple[float, float, float]]:
    readable = [video for video in facts if video.readable]
    columns: dict[str, list[float]] = {
        "frames": [video.decoded_frames for video in readable],
        "seconds": [video.duration for video in readable if video.duration],
        "frames per second": [video.fps for video in readable if video.fps],
        "width": [video.width for video in readable],
        "height": [video.height for video in readable],
        "megabytes": [video.bytes / 1e6 for video in readable],
    }
    return {name: (min(values), median(values), max(values)) for name, values in columns.items() if values}


_REMEDY = {
    "missing": "Restore it, correct its path, or take its row out.",
    "empty": "Copy or download it again.",
    "unreadable": "Replace or convert it, or take it out of the data set.",
    "damaged": "Copy or download it again, or cut the damaged part off.",
    "gave_up": "Convert it, or take it out of the data set.",
}


def _bad_files(records: Iterable[VideoRecord], facts: Mapping[str, VideoFacts]) -> Iterator[Finding]:
    for record in records:
        video = facts[record.path]
        if video.problem:
            yield Finding(video.problem, f"{record.path}: {video.reason}. {_REMEDY[video.problem]}", (record.id,))


def _listed_twice(records: Sequence[VideoRecord]) -> Iterator[Finding]:
    by_path: dict[str, list[VideoRecord]] = defaultdict(list)
    by_id: dict[str, set[str]] = defaultdict(set)
    for record in records:
        by_path[record.video].append(record)
        by_id[record.id].add(record.path)
    for path, rows in by_path.items():
        if len(rows) > 1:
            listed = some_of(f"{record.id!r} ({record.label})" for record in rows)
            ids = tuple(record.id for record in rows)
            yield Finding("listed_twice", f"{path} is listed {len(rows)} times, as {listed}. Keep one of them.", ids)
    for name, paths in by_id.items():
        if len(paths) > 1:
            yield Finding(
                "listed_twice", f"the id {name!r} stands for {some_of(sorted(paths))}. Make ids unique.", (name,)
            )


def _as_meant(records: Iterable[VideoRecord], meant: Mapping[str, str]) -> list[VideoRecord]:
    return [replace(record, label=meant[record.label]) for record in records if record.label in meant]


def _refusal(labels: LabelSet | DataError, texts: Mapping[str, str]) -> DataError | None:
    """Why there are no classes that can be told apart."""
    if isinstance(labels, DataError):
        return labels
    try:
        require_apart(labels.names, texts)
    except DataError as error:
        return error
    return None


def _labels(
    records: Sequence[VideoRecord], refusal: DataError, meant: dict[str, str], texts: Mapping[str, str]
) -> Iterator[Finding]:
    """Every label that is refused, not only the first one; `meant` takes the class that each label stands for."""
    videos: dict[str, list[str]] = defaultdict(list)
    for record in records:
        videos[record.label].append(record.id)
    accepted = ["?"]  # a set has at least two classes, and the first name must be judged by itself
    spellings: dict[str, str] = {}
    any_wrong = False
    # of two spellings the rarer one is more likely the mistake
    for name in sorted(videos, key=lambda name: (-len(videos[name]), name)):
        try:
            LabelSet((*accepted, name))
            require_apart((*accepted, name), texts)
            accepted.append(name)
            spellings[folded(texts.get(name, name))] = meant[name] = name
        except DataError as error:
            any_wrong = True
            if (key := folded(texts.get(name, name))) in spellings:
                meant[name] = spellings[key]
            yield Finding("label", str(error), tuple(videos[name]))
    if not any_wrong:
        yield Finding("label", str(refusal), ())


def _too_few(
    sides: Sides,
    records: Sequence[VideoRecord],
    names: Sequence[str],
    facts: Mapping[str, VideoFacts],
    shots: int | None,
) -> Iterator[Finding]:
    """Classes whose readable videos do not make up what is asked for."""
    taken = {record.id for part in sides.values() for record in part}
    for side, want in (("train", shots or 1), ("test", 1)):
        part = sides[side]
        if not part and not (side == "train" and shots):
            continue  # a split that is not there was not meant to be
        good = Counter(record.label for record in part if facts[record.path].readable)
        for name in names:
            if good[name] >= want:
                continue
            spare = sum(r.label == name and r.id not in taken and r.split in (None, "train") for r in records)
            hint = f"; {spare} of its videos are unused" if spare and side == "train" else ""
            yield Finding(
                "too_few",
                f"the class {name!r} has {good[name]} readable videos in {side}, {want} are needed{hint}. "
                f"Repair or add videos{', lower data.shots,' if side == 'train' and shots else ''} or leave it out.",
                tuple(record.id for record in part if record.label == name),
            )


def _imbalance(sides: Sides, names: Sequence[str], most: float, shots: int | None) -> Iterator[Finding]:
    for side, records in sides.items():
        counts = {name: count for name, count in _counts(records, names).items() if count}
        if not counts or (side == "train" and shots):  # shots are as many of each class
            continue
        large, small = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[large] >= most * counts[small]:
            advice = (
                "data.shots takes as many of each class" if side == "train" else "read balanced accuracy and macro F1"
            )
            yield Finding(
                "imbalance",
                f"{side} has {counts[large]} videos of {large!r} and {counts[small]} of {small!r}, "
                f"{counts[large] / counts[small]:.1f} times as many; {advice}.",
                (),
            )


def _blank(records: Iterable[VideoRecord], facts: Mapping[str, VideoFacts]) -> Iterator[Finding]:
    for record in records:
        if facts[record.path].blank:
            yield Finding(
                "blank", f"{record.path}: shows nothing but one colour. Look at it, and replace it.", (record.id,)
            )


def _reshaped(records: Iterable[VideoRecord], facts: Mapping[str, VideoFacts]) -> Iterator[Finding]:
    for record in records:
        video = facts[record.path]
        if video.reshaped:
            yield Finding(
                "reshaped",
                f"{record.path}: its pictures are of {video.width}x{video.height} pixels at first, {video.reshaped}. "
                "In a clip all are squeezed into the shape of its first. Cut the video there, or put bars around them.",
                (record.id,),
            )


def _outside(records: Iterable[VideoRecord], facts: Mapping[str, VideoFacts]) -> Iterator[Finding]:
    """Parts that begin where their video has ended, or that end well after it."""
    for record in records:
        seconds = facts[record.path].timeline.seconds
        # a time stamp may be off by a frame
        if record.part is not None and seconds and record.part[1] > seconds + 1.0:
            yield Finding(
                "outside",
                f"{record.video}: the video ends at {seconds:.2f} s. Correct start and end of this row.",
                (record.id,),
            )


def _frames(sides: Sides, facts: Mapping[str, VideoFacts], sampling: FrameSampling) -> Iterator[Finding]:
    """Videos that the wanted frames cannot be had from as they are meant."""
    for side, records in sides.items():
        readable = [record for record in records if facts[record.path].readable]
        if sampling.fps is not None:
            for record in readable:
                if not facts[record.path].fps:
                    yield Finding(
                        "no_frame_rate",
                        f"{record.path}: does not say its frame rate, which data.fps needs. "
                        "Set data.num_frames instead, or convert it.",
                        (record.id,),
                    )
            continue
        assert sampling.num_frames is not None
        counts = {r.id: facts[r.path].timeline_of(r.part).num_frames for r in readable}
        short = [record for record in readable if counts[record.id] < sampling.num_frames]
        if short:
            yield Finding(
                "short",
                f"{len(short)} videos of {side} have fewer than data.num_frames ({sampling.num_frames}) frames and "
                f"repeat some: {some_of(f'{r.video} ({counts[r.id]})' for r in short)}. Lower "
                "data.num_frames if that is not wanted.",
                tuple(record.id for record in short),
            )
