"""What a report needs of each run's files, read one run after another and added up by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbft.errors import DataError
from rbft.evaluation.calibration import Bin, reliability
from rbft.evaluation.comparison import Group
from rbft.evaluation.predictions import Prediction, confusion_counts, read_predictions, recalls
from rbft.experiment import TEST_KINDS
from rbft.files import read_json
from rbft.rationales.store import read_rationales
from rbft.report.collection import Entry
from rbft.runs.names import ANSWERING, PREDICTIONS, RATIONALES
from rbft.runs.run_folder import RunFolder

_ROUNDING = 1e-9
"""What a probability may be above 1 by: shares of 1 that are multiplied and added end at 1 + 2e-16 now and then."""


@dataclass(frozen=True)
class Answer:
    """What the runs of a group say of one test video.

    Args:
        chances: (C,) mean probability of each class over the runs that could read it; None where none could.
        right: number of runs that are right.
        runs: number of runs that were tested on the video.
        before: rationale of the first run in its earlier test, before stage 1; None where it wrote none.
        after: rationale of the first run in its last test; None where it wrote none.
    """

    chances: NDArray[np.float64] | None
    right: int
    runs: int
    before: str | None
    after: str | None

    @property
    def wrong(self) -> bool:
        """Whether no more than half of the runs are right."""
        return 2 * self.right <= self.runs


@dataclass(frozen=True)
class Digest:
    """A group of runs with what their predictions add up to.

    Args:
        group: the group.
        entries: finished runs of the group.
        labels: the classes.
        confusion: (C, C) counts of all runs together.
        bins: Reliability of all runs together.
        recalls: right and all test videos of each class, all runs together.
        truth: path and class of each test video, by id.
        answers: predictions for each test video, by id.
    """

    group: Group
    entries: tuple[Entry, ...]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    bins: tuple[Bin, ...]
    recalls: Mapping[str, tuple[int, int]]
    truth: Mapping[str, tuple[str, str]]
    answers: Mapping[str, Answer]

    def mean(self, key: str) -> float | None:
        """Mean of a metric over the runs; None unless all have it."""
        return mean_of([entry.run.metrics.get(key) for entry in self.entries])

    @cached_property
    def rationales(self) -> dict[str, float | None]:
        """Means over the runs of the figures of their last write stage's rationales; empty where no run writes."""
        per_run = [figures for entry in self.entries if (figures := _rationale_figures(entry.run))]
        keys = list(dict.fromkeys(key for figures in per_run for key in figures))
        return {key: mean_of([figures.get(key) for figures in per_run]) for key in keys}

    @property
    def stages(self) -> list[str]:
        """Names of all finished stages of its runs, in order."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.run.stages))

    def stage_mean(self, stage: str, key: str | None = None) -> float | None:
        """Mean over the runs of a stage's seconds, or of a figure in its summary; None unless all have it."""
        records = [entry.run.stages.get(stage) for entry in self.entries]
        return mean_of(
            [
                None if record is None else record[1].seconds if key is None else record[1].summary.get(key)
                for record in records
            ]
        )


def mean_of(values: Sequence[Any]) -> float | None:
    """The mean; None where a value is missing or not a number, so that a part never passes for the whole."""
    if not values or any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return None
    return fmean(values)


def digest(group: Group, entries: Sequence[Entry]) -> Digest | None:
    """Read the runs of a group; None where none is finished.

    Raises:
        DataError: A run's predictions do not fit its classes, or the runs of a group differ in their classes.
    """
    entries = tuple(entry for entry in entries if entry.finished)
    if not entries:
        return None
    labels = entries[0].run.labels
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    bins: list[list[Bin]] = []
    hits, totals = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    truth: dict[str, tuple[str, str]] = {}
    chances: dict[str, list[NDArray[np.float64]]] = {}
    right, runs = dict[str, int](), dict[str, int]()
    after: dict[str, str] = {}
    for entry in entries:
        if entry.run.labels != labels:
            raise DataError(
                f"{entries[0].run.path} and {entry.run.path} have other classes and cannot be averaged; "
                "report on them apart."
            )
        predictions = read_checked(entry.run.predictions, labels)
        confusion += confusion_counts(predictions, labels)
        bins.append(reliability(predictions, labels))
        for name, (hit, total) in recalls(predictions, labels).items():
            hits[name] += hit
            totals[name] += total
        for prediction in predictions:
            key = prediction.id
            truth[key] = (prediction.video, prediction.label)
            runs[key] = runs.get(key, 0) + 1
            right[key] = right.get(key, 0) + (prediction.predicted == prediction.label)
            if prediction.predicted is not None:
                chances.setdefault(key, []).append(np.array(prediction.calibrated or prediction.probabilities))
        if entry is entries[0]:
            after = {prediction.id: prediction.rationale for prediction in predictions if prediction.rationale}
    before = _earlier_rationales(entries[0].run, labels)
    answers = {
        key: Answer(
            np.mean(chances[key], axis=0) if key in chances else None,
            right[key],
            runs[key],
            before.get(key),
            after.get(key),
        )
        for key in truth
    }
    joined = tuple(_joined(parts) for parts in zip(*bins, strict=True))
    return Digest(
        group, entries, labels, confusion, joined, {name: (hits[name], totals[name]) for name in labels}, truth, answers
    )


def read_checked(path: Path, labels: Sequence[str]) -> list[Prediction]:
    """Predictions that fit a list of classes.

    Raises:
        DataError: A prediction does not fit; names it.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing, though the run is finished; run `rbft fit` again, which writes it again.")
    predictions = read_predictions(path)
    for prediction in predictions:
        known = prediction.label in labels and prediction.predicted in (None, *labels)
        sizes = {len(prediction.probabilities)} | ({len(prediction.calibrated)} if prediction.calibrated else set())
        if not known or (prediction.predicted is not None and sizes != {len(labels)}):
            raise DataError(
                f"{path}: the prediction for {prediction.id!r} does not fit the classes in labels.json; "
                "the files are of different runs."
            )
        values = (*prediction.probabilities, *prediction.calibrated)
        if not all(isinstance(value, (int, float)) and 0 <= value <= 1 + _ROUNDING for value in values):
            raise DataError(f"{path}: the probabilities for {prediction.id!r} are not all numbers from 0 to 1.")
    return predictions


def _joined(parts: Sequence[Bin]) -> Bin:
    """One bin of several runs together."""
    count = sum(part.count for part in parts)

    def mean(name: str) -> float | None:
        return sum(part.count * (getattr(part, name) or 0.0) for part in parts) / count if count else None

    return Bin(parts[0].low, parts[0].high, count, mean("confidence"), mean("accuracy"))


def _earlier_rationales(run: RunFolder, labels: Sequence[str]) -> dict[str, str]:
    """Rationales of the run's first test stage, where it is not its last."""
    tests = run.stages_of(*TEST_KINDS)
    path = tests[0][0] / PREDICTIONS if len(tests) > 1 else None
    if path is None or not path.is_file():
        return {}
    return {prediction.id: prediction.rationale for prediction in read_checked(path, labels) if prediction.rationale}


def _rationale_figures(run: RunFolder) -> dict[str, float]:
    """Figures of the run's last write stage: shares of rationales kept and agreeing, and mean scores of the checks."""
    written = [folder / RATIONALES for folder, _ in run.stages_of("write")]
    if not written or not written[-1].is_file():
        return {}
    rationales = read_rationales(written[-1])
    if not rationales:
        return {}
    figures = {
        "agreement": fmean(rationale.stated == rationale.label for rationale in rationales),
        "kept": fmean(rationale.kept for rationale in rationales),
    }
    for check in dict.fromkeys(name for rationale in rationales for name in rationale.scores):
        scores = [rationale.scores[check] for rationale in rationales if check in rationale.scores]
        if (mean := mean_of(scores)) is not None:
            figures[check] = mean
    return figures


def answering_cost(run: RunFolder) -> dict[str, Any]:
    """The record of tokens that the run's last test wrote; empty where it answers directly."""
    tests = run.stages_of(*TEST_KINDS)
    path = tests[-1][0] / ANSWERING if tests else None
    content = read_json(path) if path is not None and path.is_file() else {}
    return content if isinstance(content, dict) else {}
