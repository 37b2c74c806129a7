"""The page of an overview: its tables, charts and gallery as one file that opens offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from rbft.evaluation.comparison import Group, baseline_point, interval_words, key_of, point_words, repeats_words
from rbft.report.charts import Dot, Series, chart, legend_mark, reliability_chart
from rbft.report.group_data import Digest, answering_cost, mean_of
from rbft.report.overview import Overview, group_words, method_of, shots_of, shots_words
from rbft.report.templates import render

_CONFUSION_SHOWN, _PAIRS_SHOWN = 20, 30
_TOP5 = "test/top5_accuracy"
_FIGURES = {
    "test/balanced_accuracy": "balanced accuracy",
    "test/macro_f1": "macro-F1",
    _TOP5: "top-5 accuracy",
    "test/auroc": "AUROC",
    "test/ece": "calibration error",
    "test/ece_calibrated": "the same, calibrated",
}


def write_overview(overview: Overview, title: str, verdict: Sequence[str] = ()) -> str:
    """The page.

    Args:
        overview: the figures to show.
        title: heading of the page.
        verdict: what the figures come to, in sentences; shown first.
    """
    script = files("rbft.report").joinpath("overview.js").read_text(encoding="utf-8")
    # the only script that the page's policy lets run; how a browser reads the element's text
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    number = {name: place for place, name in enumerate(overview.methods)}
    several = len(overview.cards) > 1 or any("experiment" in group.point for group in overview.groups)
    # of five classes or fewer every answer is among the five likeliest
    finished = [data for data in overview.digests if data is not None]
    figures = {
        key: name for key, name in _FIGURES.items() if key != _TOP5 or any(len(data.labels) > 5 for data in finished)
    }
    rows = [_row(group, several) for group in overview.groups]
    panels = [_panel(data, number[method_of(data.group.point)]) for data in overview.digests if data is not None]
    return render(
        "overview.html.j2",
        title=title,
        overview=overview,
        verdict=verdict,
        script=script,
        seal=seal,
        several=several,
        rows=rows,
        baseline=None if overview.baseline is None else point_words(overview.baseline),
        curves=_curves(overview, number),
        repeat=repeats_words(overview.replicates, one=True),
        repeats=repeats_words(overview.replicates),
        counted=any(group.labelled is not None for group in overview.groups),
        figures=list(figures.values()),
        means=[
            (row, [None if data is None else data.mean(key) for key in figures])
            for row, data in zip(rows, overview.digests, strict=True)
        ],
        panels=panels,
        changes=_changes(overview),
        rationales=_rationales(overview, number),
        costs=_costs(overview),
    )


def _row(group: Group, several: bool) -> dict[str, Any]:
    """A line of the table of methods."""
    accuracy, comparison = group.accuracy, group.comparison
    row: dict[str, Any] = {
        "experiment": group.point.get("experiment") if several else None,
        "method": method_of(group.point),
        "shots": shots_words(group.point),
        "runs": f"{accuracy.count if accuracy is not None else 0}/{group.runs}",
        "mean": None if accuracy is None else f"{accuracy.mean:.1%}",
        "interval": None if accuracy is None or accuracy.low is None else interval_words(accuracy),
        "chance": group.chance,
        "majority": group.majority,
        "labels": group.labelled_words,
        "difference": None,
        "difference_interval": None,
        "p": None,
        "detectable": None,
    }
    if comparison is not None:
        change = comparison.difference.difference
        row |= {
            "difference": f"{100 * change.mean:+.1f}",
            "difference_interval": None if change.low is None else interval_words(change, points=True),
            "p": None if comparison.p is None else f"{comparison.p:.3f}",
            "detectable": None if comparison.detectable is None else f"{100 * comparison.detectable:.1f}",
        }
    return row


def _curves(overview: Overview, number: Mapping[str, int]) -> list[dict[str, Any]]:
    """Accuracy over shots for each experiment that has more than one number of shots."""
    curves = []
    experiments = dict.fromkeys(str(group.point.get("experiment") or "") for group in overview.groups)
    for experiment in experiments:
        groups = [group for group in overview.groups if str(group.point.get("experiment") or "") == experiment]
        shots = sorted({shots_of(group.point) for group in groups if group.accuracy is not None})
        if len(shots) < 2:
            continue
        # evenly apart, as shots are usually doubled; what has all videos stands at the end
        place = {value: rank / (len(shots) - 1) for rank, value in enumerate(shots)}
        ticks = [(place[value], "all" if value == float("inf") else f"{value:g}") for value in shots]
        series: dict[str, list[Dot]] = {}
        for group in groups:
            accuracy = group.accuracy
            if accuracy is not None:
                words = f"{group_words(group.point)}: {accuracy.mean:.1%}, {interval_words(accuracy)}"
                dot = Dot(place[shots_of(group.point)], accuracy.mean, accuracy.low, accuracy.high, words)
                series.setdefault(method_of(group.point), []).append(dot)
        drawn = [Series(number[name], tuple(sorted(dots, key=lambda dot: dot.x))) for name, dots in series.items()]
        chances = {
            data.mean("chance/accuracy") for data in overview.digests if data is not None and data.group in groups
        }
        chance = chances.pop() if len(chances) == 1 else None
        about = f"Accuracy over labelled videos a class for {', '.join(series)}; the table above has the figures"
        floor = None if chance is None else (chance, "chance")
        svg = chart(drawn, ticks, "labelled videos a class", "accuracy", about, floor)
        legend = [(legend_mark(number[name]), name) for name in series]
        curves.append({"name": experiment, "svg": svg, "legend": legend})
    return curves


def _panel(data: Digest, number: int) -> dict[str, Any]:
    """Confusions and calibration of a group."""
    name = group_words(data.group.point)
    totals = data.confusion.sum(1)
    cells = None
    if len(data.labels) <= _CONFUSION_SHOWN:
        cells = [
            [(int(count), count / total if total else 0.0) for count in row]
            for row, total in zip(data.confusion, totals, strict=True)
        ]
    pairs = [
        (int(data.confusion[row, column]), data.labels[row], data.labels[column])
        for row in range(len(data.labels))
        for column in range(len(data.labels))
        if row != column and data.confusion[row, column]
    ]
    about = f"Reliability diagram of {name}: accuracy of the answers by how sure they are"
    return {
        "name": name,
        "runs": len(data.entries),
        "labels": data.labels,
        "cells": cells,
        "pairs": sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:_PAIRS_SHOWN],
        "ece": data.mean("test/ece"),
        "calibrated": data.mean("test/ece_calibrated"),
        "reliability": reliability_chart(data.bins, number, about),
    }


def _changes(overview: Overview) -> list[dict[str, Any]]:
    """Recall of each class beside the baseline's, by experiment: columns are groups, rows classes."""
    known = {key_of(group.point): data for group, data in zip(overview.groups, overview.digests, strict=True)}
    tables: dict[tuple[str, ...], dict[str, Any]] = {}
    for group, data in zip(overview.groups, overview.digests, strict=True):
        other = baseline_point(group.point, overview.baseline, list(known))
        base_data = None if other is None else known[key_of(other)]
        if data is None or base_data is None or base_data.labels != data.labels:
            continue
        table = tables.setdefault(data.labels, {"columns": [], "rows": {name: [] for name in data.labels}})
        table["columns"].append(group_words(group.point))
        for name in data.labels:
            recall, base = _share(data.recalls[name]), _share(base_data.recalls[name])
            table["rows"][name].append(None if recall is None or base is None else (recall - base, recall, base))
    return list(tables.values())


def _share(count: tuple[int, int]) -> float | None:
    return count[0] / count[1] if count[1] else None


def _rationales(overview: Overview, number: Mapping[str, int]) -> dict[str, Any] | None:
    """Quality of the written rationales beside the accuracy that came of them; None where no run writes any."""
    writers = [data for data in overview.digests if data is not None and data.rationales]
    if not writers:
        return None
    keys = list(dict.fromkeys(key for data in writers for key in data.rationales))
    rows = [
        (
            group_words(data.group.point),
            [data.rationales.get(key) for key in keys],
            None if data.group.accuracy is None else data.group.accuracy.mean,
        )
        for data in writers
    ]
    series = []
    for data in writers:
        agreement, accuracy = data.rationales.get("agreement"), data.group.accuracy
        if agreement is not None and accuracy is not None:
            words = f"{group_words(data.group.point)}: agreement {agreement:.1%}, accuracy {accuracy.mean:.1%}"
            dot = Dot(agreement, accuracy.mean, accuracy.low, accuracy.high, words)
            series.append(Series(number[method_of(data.group.point)], (dot,), joined=False))
    ticks = [(fifth / 5, f"{20 * fifth}%") for fifth in range(6)]
    about = "Accuracy over the share of rationales that state their video's class; the table above has the figures"
    svg = chart(series, ticks, "rationales that state the right class", "accuracy", about) if len(series) > 1 else None
    names = [key if key in ("agreement", "kept") else key.replace("_", " ") for key in keys]
    drawn = dict.fromkeys(method_of(data.group.point) for data in writers)
    legend = [(legend_mark(number[name]), name) for name in drawn]
    return {"columns": names, "rows": rows, "svg": svg, "legend": legend}


def _costs(overview: Overview) -> dict[str, Any]:
    """Seconds of each stage, tokens and memory of each group; None where it was not recorded."""
    finished = [data for data in overview.digests if data is not None]
    # in the order of the methods with most stages, which the others are parts of
    longest = sorted(finished, key=lambda data: -len(data.stages))
    stages = list(dict.fromkeys(name for data in longest for name in data.stages))
    rows = []
    for data in finished:
        peaks = [data.stage_mean(name, "gpu_memory_bytes") for name in data.stages]
        trained = [name for name in data.stages if data.stage_mean(name, "steps") is not None]
        tokens = [data.stage_mean(name, "supervised_tokens") for name in trained]
        known = [value for value in peaks if value is not None]
        rows.append(
            {
                "name": group_words(data.group.point),
                # a stage that a method does not have costs nothing and is not missing
                "seconds": [(name in data.stages, data.stage_mean(name)) for name in stages],
                "total": mean_of([entry.run.seconds for entry in data.entries]),
                "tokens": sum(value or 0 for value in tokens) if trained and None not in tokens else None,
                "trains": bool(trained),
                "written": mean_of(
                    [answering_cost(entry.run).get("tokens_written_per_video") for entry in data.entries]
                ),
                "memory": max(known) / 2**30 if known and len(known) == len(peaks) else None,
            }
        )
    return {"stages": stages, "rows": rows}
