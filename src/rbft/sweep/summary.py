"""The result of a sweep: a mean with its interval for each method, and its difference from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rbft.evaluation.comparison import Group, Member, compare
from rbft.evaluation.model_selection import choose_runs, without
from rbft.runs.run_folder import RunFolder
from rbft.sweep.grid import Sweep
from rbft.sweep.progress import Progress


def summarise(sweep: Sweep, progress: Sequence[Progress]) -> list[Group]:
    """Group the runs of a sweep, those that validation videos choose, and compare them with its baseline.

    Raises:
        DataError: A run cannot be chosen by validation videos.
    """
    members = [member_of(entry, sweep.choose) for entry in progress]
    kept = [
        replace(members[place], point=without(members[place].point, sweep.choose), chosen=chosen)
        for place, chosen in choose_runs(members, sweep.choose)
    ]
    return compare(kept, sweep.baseline, sweep.replicates)


def chosen_entries(sweep: Sweep, progress: Sequence[Progress]) -> list[Progress]:
    """The runs that validation videos choose; all where there is nothing to choose.

    Raises:
        DataError: A run cannot be chosen by validation videos.
    """
    members = [member_of(entry, sweep.choose) for entry in progress]
    return [progress[place] for place, _ in choose_runs(members, sweep.choose)]


def member_of(progress: Progress, choose: Sequence[str]) -> Member:
    """A run of a sweep as it is compared, with its validation videos where these choose."""
    run = RunFolder(progress.run.folder)
    accuracy = progress.accuracy()
    chance, majority = (None, None) if accuracy is None else run.floors
    labelled = None if accuracy is None else run.labelled
    member = Member(progress.run.point, accuracy, run.predictions, chance=chance, majority=majority, labelled=labelled)
    if not choose or member.accuracy is None:
        return member
    return replace(member, validation=run.validation, labels=run.labels)


def to_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The summary as plain values."""
    return [asdict(group) for group in groups]
