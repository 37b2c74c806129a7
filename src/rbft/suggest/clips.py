"""The clips that a suggestion is about: those that a run's data set labels, and those that nobody has labelled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rbft.data.records import VideoRecord, part_name
from rbft.errors import DataError, VideoError
from rbft.evaluation.predictions import Prediction
from rbft.files import file_digest
from rbft.predict import Classifier, VideoInput
from rbft.terminal import steps_shown
from rbft.video.container import reading_within, resolve_inside

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """A clip as a suggestion names it.

    Args:
        name: name for people and tables, relative to `root`.
        file: the file, links followed.
        root: folder of the clip.
        part: seconds of the file; None: all of it.
        record: the labelled clip; None: it has no label.
    """

    name: str
    file: Path
    root: Path
    part: tuple[float, float] | None = None
    record: VideoRecord | None = None


@dataclass(frozen=True)
class Seen:
    """What the model makes of clips.

    Args:
        clips: clips that can be read.
        features: (N, H) mean-pooled visual features.
        predictions: what the run answers about each; empty where it was not asked.
        unreadable: why the others cannot be read, by name.
    """

    clips: tuple[Clip, ...]
    features: Array
    predictions: tuple[Prediction, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def probabilities(self) -> Array:
        """(N, C), calibrated where the run is."""
        return np.array([said.calibrated or said.probabilities for said in self.predictions], dtype=np.float64)


def labelled_clips(classifier: Classifier, root: Path | None = None) -> list[Clip]:
    """The clips of the run's data set as it is now, labels that were added or corrected since included.

    Args:
        classifier: the run.
        root: folder of the data set; None: as the run recorded it.

    Raises:
        DataError: The data set cannot be read any more.
    """
    recorded = root is None
    root = classifier.recorded.data_root if root is None else root.resolve()
    data = classifier.model.data.at(root)
    data.format.prepare(root)  # a data set that is made may be made again
    if recorded and not root.is_dir():
        raise DataError(
            f"--run {classifier.run}: no folder {root}, in which its videos were; a relative data.root starts at the "
            "current folder. Say where they are with --data.root FOLDER."
        )
    clips = []
    for record in data.records:
        clips.append(Clip(record.video, resolve_inside(root, record.path), root, record.part, record))
    return clips


def unlabelled_clips(videos: Sequence[VideoInput], labelled: Sequence[Clip]) -> tuple[list[Clip], int, dict[str, str]]:
    """The clips without a label among some videos.

    Args:
        videos: what a person named.
        labelled: clips that have a label.

    Returns:
        The clips; how many of the videos have a label, or are copies of files that have; and why others must not be
        opened, by name.
    """
    parts = {(clip.file, clip.part) for clip in labelled}
    files = {clip.file for clip in labelled}
    sizes: dict[int, list[Path]] = {}
    for file in (file for file in files if file.is_file()):  # a folder of images has no content of its own to compare
        sizes.setdefault(file.stat().st_size, []).append(file)
    clips: list[Clip] = []
    refused: dict[str, str] = {}
    known = 0
    for video in videos:
        try:
            file = video.resolve()
        except VideoError as error:
            refused[video.name] = str(error)
            continue
        if file in files:
            # of a recording that has labels, only other parts of it are without
            labels_it = video.part is None or (file, video.part) in parts or (file, None) in parts
        else:
            same = sizes.get(file.stat().st_size, []) if file.is_file() else []
            labels_it = bool(same) and file_digest(file) in map(file_digest, same)
        if labels_it:
            known += 1
            continue
        root = Path(video.root) if video.root is not None else Path()
        stated = video.path if video.root is not None else os.path.relpath(file)
        clips.append(Clip(part_name(stated, video.part), file, root, video.part))
    return clips, known, refused


def see(classifier: Classifier, clips: Sequence[Clip], console: Console, *, ask: bool) -> Seen:
    """Look at clips, and ask the run about them.

    Args:
        classifier: the run.
        clips: clips to look at.
        console: console for the progress.
        ask: whether the run answers, too.

    Raises:
        RBFTError: The model cannot be loaded.
    """
    if not clips:
        return Seen((), np.zeros((0, 0)))
    root = Path(os.path.commonpath([clip.file.parent for clip in clips]))
    paths = [clip.file.relative_to(root).as_posix() for clip in clips]
    first = classifier.labels.names[0]
    records = [
        VideoRecord(str(place), path, first, part=clip.part)
        for place, (path, clip) in enumerate(zip(paths, clips, strict=True))
    ]
    with reading_within(classifier.time_limit), steps_shown(console) as report:
        found, errors = classifier.model.look(records, root, report=report)
        answers: dict[str, Prediction] = {}
        if ask:
            answers, failed = classifier.model.ask([r for r in records if r.id in found], root, report=report)
            errors |= failed
    whole = [int(record.id) for record in records if record.id not in errors]
    return Seen(
        tuple(clips[place] for place in whole),
        np.array([found[str(place)] for place in whole]),
        tuple(classifier.answered(answers[str(place)]) for place in whole) if ask else (),
        {clips[int(place)].name: why for place, why in errors.items()},
    )
