"""Many runs in one view: methods by shots, differences from the baseline with their intervals, and example videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rbft.evaluation.comparison import Group, Point, compare, key_of, point_words, shared
from rbft.experiment import METHODS
from rbft.report.collection import Entry, choose_entries
from rbft.report.gallery import Card, gallery
from rbft.report.group_data import Digest, digest
from rbft.runs.run_folder import REPLICATES

_NOT_SHOTS = ("experiment", "data.shots")


@dataclass(frozen=True)
class Overview:
    """Everything a report shows, in plain values; the same for the page, the Markdown table and TensorBoard.

    Args:
        groups: all groups, by method and shots.
        digests: added-up results of each group, in the same order; None where no run is finished.
        baseline: what groups are compared with; None for nothing.
        runs: number of runs that there should be.
        finished: number of runs that are finished.
        cards: the gallery, by experiment.
        videos: number of test videos of each experiment that the gallery was chosen from.
        replicates: keys that repeat a run.
    """

    groups: tuple[Group, ...]
    digests: tuple[Digest | None, ...]
    baseline: Point | None
    runs: int
    finished: int
    cards: Mapping[str, Sequence[Card]] = field(default_factory=dict)
    videos: Mapping[str, int] = field(default_factory=dict)
    replicates: tuple[str, ...] = REPLICATES

    @property
    def cautions(self) -> list[tuple[str, str]]:
        """Pairs: a group, and a caution that a reader of its comparison needs."""
        return [
            (group_words(group.point), caution)
            for group in self.groups
            if group.comparison is not None
            for caution in group.comparison.cautions
        ]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Pairs: a group for which validation videos chose, and the settings that they chose."""
        return [(group_words(group.point), group.chosen_words) for group in self.groups if group.chosen]

    @property
    def methods(self) -> list[str]:
        """Names of the methods, with the settings in which they differ."""
        return list(dict.fromkeys(method_of(group.point) for group in self.groups))


def method_of(point: Point) -> str:
    """A group's method with its other distinguishing settings, but for experiment and shots."""
    return point_words({key: value for key, value in point.items() if key not in _NOT_SHOTS})


def group_words(point: Point) -> str:
    """A group's name for people."""
    experiment = f"{point['experiment']}: " if "experiment" in point else ""
    shots = shots_words(point)
    return f"{experiment}{method_of(point)}, {'all videos' if shots == 'all' else f'{shots} shots'}"


def shots_words(point: Point) -> str:
    """A group's shots for people."""
    shots = point.get("data.shots")
    return "all" if shots is None else str(shots)


def shots_of(point: Point) -> float:
    """A group's shots as a number to sort by; all there are is the most."""
    shots = point.get("data.shots")
    return float("inf") if not isinstance(shots, (int, float)) else float(shots)


def make_overview(
    entries: Sequence[Entry],
    baseline: Point | None,
    clips: int,
    choose: Sequence[str] = (),
    replicates: Sequence[str] = REPLICATES,
) -> Overview:
    """Read and compare the runs.

    Args:
        entries: the runs.
        baseline: what groups are compared with.
        clips: most videos in the gallery of each experiment.
        choose: settings that validation videos choose; runs that are not chosen are only counted.
        replicates: keys that repeat a run.

    Raises:
        ConfigError: No runs differ in such a setting.
        DataError: A run's files do not fit together, or it cannot be chosen by validation videos.
    """
    runs, finished = len(entries), sum(entry.finished for entry in entries)
    entries = choose_entries(entries, choose, replicates)
    groups = compare([entry.member() for entry in entries], baseline, replicates)
    known = {name: place for place, name in enumerate(METHODS)}
    # the built-in methods from the simplest on, then the file's own in the order they were found
    methods = dict.fromkeys(str(group.point["method"]) for group in groups)
    order = {name: known.get(name, len(known) + place) for place, name in enumerate(methods)}
    groups.sort(
        key=lambda group: (
            str(group.point.get("experiment")),
            order[str(group.point["method"])],
            method_of(group.point),
            shots_of(group.point),
        )
    )
    by_key: dict[str, list[Entry]] = {}
    for entry in entries:
        by_key.setdefault(key_of(shared(entry.point, replicates)), []).append(entry)
    digests = [digest(group, by_key[key_of(group.point)]) for group in groups]
    cards: dict[str, list[Card]] = {}
    videos: dict[str, int] = {}
    for experiment in dict.fromkeys(entry.run.experiment for entry in entries if entry.finished) if clips else ():
        chosen = _most_shots([data for data in digests if data and data.entries[0].run.experiment == experiment])
        names = [method_of(data.group.point) for data in chosen]
        cards[experiment], videos[experiment] = gallery(chosen, names, clips)
    return Overview(tuple(groups), tuple(digests), baseline, runs, finished, cards, videos, tuple(replicates))


def _most_shots(digests: Sequence[Digest]) -> list[Digest]:
    """Of each method the group with the most shots, as far as they have the classes of the first."""
    best: dict[str, Digest] = {}
    for data in digests:
        name = method_of(data.group.point)
        if data.labels == digests[0].labels and (
            name not in best or shots_of(data.group.point) >= shots_of(best[name].group.point)
        ):
            best[name] = data
    return list(best.values())
