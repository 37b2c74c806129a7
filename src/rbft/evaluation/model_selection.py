"""Tuned settings: of runs that differ in these alone, the one with the best result on its validation videos."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rbft.errors import DataError
from rbft.evaluation.comparison import Member, Point, key_of
from rbft.evaluation.predictions import read_predictions


def without(point: Point, keys: Sequence[str]) -> Point:
    """A point without some of its keys."""
    return {key: value for key, value in point.items() if key not in keys}


def choose_runs(members: Sequence[Member], keys: Sequence[str]) -> list[tuple[int, Point]]:
    """Choose one run of those that are equal but for some settings: the one that is right on most validation videos.

    Of equals the one that gives the right class most (mean negative log-probability). Each seed and draw chooses for
    itself, as somebody with those videos alone would. While one of several is not finished, nothing is chosen, and
    one that is not finished stands for them all.

    Args:
        members: the runs.
        keys: settings that were tuned; a run need not have them.

    Returns:
        Indices of the chosen runs, ascending, each with the chosen settings; these are empty where a run had no rival.

    Raises:
        DataError: One of several was not scored on validation videos, or not on those of the others.
    """
    rivals: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        rivals.setdefault(key_of(without(member.point, keys)), []).append(place)
    chosen = []
    for places in rivals.values():
        place = _best(members, places)
        point = members[place].point
        decided = len(places) > 1 and members[place].accuracy is not None
        chosen.append((place, {key: point[key] for key in keys if decided and key in point}))
    return sorted(chosen, key=lambda choice: choice[0])


def _best(members: Sequence[Member], places: Sequence[int]) -> int:
    waiting = [place for place in places if members[place].accuracy is None]
    if waiting or len(places) == 1:
        return (waiting or places)[0]
    validated = {place: _validated(members[place]) for place in places}
    first = places[0]
    for place in places[1:]:
        if validated[place][1] != validated[first][1]:
            raise DataError(
                f"{members[first].validation} and {members[place].validation}: their videos differ, so "
                "neither can be chosen; give such runs the same data settings."
            )
    return max(places, key=lambda place: validated[place][0])


def validation_score(member: Member) -> float:
    """One number that orders finished runs as they are chosen: by accuracy, of equals by log-likelihood.

    Raises:
        DataError: It was not scored on validation videos.
    """
    (accuracy, likelihood), ids = _validated(member)
    # the second summand is less than one more right video
    return accuracy + 0.5 / len(ids) / (1.0 - likelihood / len(ids))


def _validated(member: Member) -> tuple[tuple[float, float], set[str]]:
    """The score of a run on its validation videos, higher is better, and the ids of these videos."""
    path = member.validation
    rows = [] if path is None or not path.is_file() else read_predictions(path)
    if not rows:
        raise DataError(
            f"{path or member.predictions.parent}: this run was not scored on validation videos, so it "
            "cannot be chosen by them. Give data.val_shots (or validation videos of your own) and leave "
            "model.answering.calibrate on."
        )
    try:
        likely = [row.probabilities[member.labels.index(row.label)] for row in rows]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: its classes are not those of the run's labels.json ({error}).") from error
    right = sum(row.predicted == row.label for row in rows)
    return (right / len(rows), sum(math.log(max(chance, 1e-300)) for chance in likely)), {row.id for row in rows}
