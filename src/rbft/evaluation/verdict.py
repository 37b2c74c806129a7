"""What a comparison of methods comes to, in plain words: which is better by how much, and which one to take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from rbft.evaluation.comparison import Group
from rbft.evaluation.statistics import FEWEST_RUNS, MeanInterval

Outcome = Literal["better", "worse", "no difference", "too few draws", "not compared"]

_WORDS = {
    "zero_shot": "the untrained model",
    "sft": "direct SFT",
    "rationale_only": "the first stage alone",
    "rbft": "RB-FT",
    "joint": "joint training",
    "distil": "distillation",
    "probe": "the linear probe",
    "caption_probe": "the caption probe",
    "encoder_probe": "the encoder probe",
}
_CONFIDENCE = 0.95
_ROUNDING = 1e-9
"""Means of shares that differ by less are equal: the same shares, summed in another order, differ by about 1e-17."""


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Args:
        outcome: how the main method stands to the baseline.
        sentences: what to tell a person, the main comparison first.
        method: method to take; None where no method that can predict has a finished run.
        worth_using: whether that method is better than an answer that looks at nothing.
    """

    outcome: Outcome
    sentences: tuple[str, ...]
    method: str | None
    worth_using: bool = True


def method_words(method: str) -> str:
    """A method's name in the middle of a sentence."""
    return _WORDS.get(method, method)


def widened(interval: MeanInterval, comparisons: int) -> MeanInterval:
    """A 95% interval made so wide that this many of them hold together (Bonferroni; Dunn 1961).

    Args:
        interval: mean with its 95% Student-t interval.
        comparisons: number of intervals that are looked at together.
    """
    if interval.low is None or interval.high is None:
        return interval
    freedom = interval.count - 1
    wanted = stats.t.ppf(0.5 + (1 - (1 - _CONFIDENCE) / comparisons) / 2, freedom)
    half = (interval.high - interval.mean) * float(wanted / stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom))
    return MeanInterval(interval.mean, interval.mean - half, interval.mean + half, interval.count)


def judge(difference: MeanInterval) -> Outcome:
    """How a method stands to another, by the interval of their paired difference.

    Fewer than three pairs say too little, and so do pairs that all differ by the very same amount: their interval has
    no width, whatever the true spread.
    """
    if difference.count < FEWEST_RUNS or difference.low is None or difference.high is None:
        return "too few draws"
    if difference.low == difference.high and difference.mean != 0:
        return "too few draws"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "no difference"


def decide(
    groups: Sequence[Group],
    *,
    baseline: str = "sft",
    main: str = "rbft",
    seconds: Mapping[str, float] | None = None,
    unusable: Collection[str] = (),
) -> Verdict:
    """The verdict on methods that were run on the same draws.

    The main method beside the baseline is the one comparison made at 95%; intervals of all others are corrected for
    their number. The method to take is the baseline, unless another one that costs more is shown to be better, or one
    that costs less is no worse in the mean.

    Args:
        groups: one group a method, compared with the baseline's; a group's point names its method.
        baseline: method that others are compared with.
        main: method that the comparison is about.
        seconds: seconds that a run of each method takes; a method without counts as costing more than the baseline.
        unusable: methods whose runs cannot predict.
    """
    by_method = {str(group.point["method"]): group for group in groups if group.accuracy is not None}
    differences = {
        name: group.comparison.difference.difference
        for name, group in by_method.items()
        if group.comparison is not None and name != baseline
    }
    others = [name for name in differences if name != main]
    corrected = {name: widened(differences[name], len(others)) for name in others}
    costs = dict(seconds or {})
    sentences: list[str] = []
    outcome: Outcome = "not compared"
    if main in differences:
        outcome = judge(differences[main])
        sentences.append(_main_sentence(outcome, differences[main], baseline, main, costs))
    elif main != baseline and any(group.point["method"] == main for group in groups):
        sentences.append(
            f"{_first(main)} and {method_words(baseline)} cannot be compared: no draw has a finished run of both."
        )
    if corrected:
        sentences.append(_others_sentence(corrected, baseline))
    shown = {**corrected, **({main: differences[main]} if main in differences else {})}
    method = _choose(by_method, shown, baseline, costs, unusable)
    floor = "" if method is None else _floor_sentence(by_method[method], method)
    if floor:
        sentences.append(floor)
    return Verdict(outcome, tuple(sentences), method, worth_using=not floor)


def _first(method: str) -> str:
    """A method's name at the beginning of a sentence."""
    words = method_words(method)
    return words[0].upper() + words[1:]


def _draws(count: int) -> str:
    return "1 draw" if count == 1 else f"{count} draws"


def _span(interval: MeanInterval) -> str:
    assert interval.low is not None and interval.high is not None
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _main_sentence(
    outcome: Outcome, difference: MeanInterval, baseline: str, main: str, seconds: Mapping[str, float]
) -> str:
    ours, theirs, points = method_words(main), method_words(baseline), 100 * difference.mean
    if outcome == "too few draws":
        if difference.count >= FEWEST_RUNS:
            return (
                f"Cannot say whether {ours} is better than {theirs} on your clips: all {_draws(difference.count)} "
                f"differ by the same {points:+.1f} points, which gives no interval."
            )
        verb = "is" if difference.count == 1 else "are"
        return (
            f"{_draws(difference.count)} {verb} too few to say whether {ours} is better than {theirs} on your clips "
            f"(so far {points:+.1f} points); {FEWEST_RUNS} are the least, 5 are better."
        )
    if outcome == "no difference":
        text = (
            f"On your clips there is no difference between {ours} and {theirs} that {_draws(difference.count)} can "
            f"show ({points:+.1f} points, {_span(difference)})"
        )
        if main in seconds and baseline in seconds:
            cheaper = main if seconds[main] < seconds[baseline] else baseline
            text += f"; {method_words(cheaper)} is the cheaper"
        return f"{text}."
    low, high = sorted((abs(difference.low or 0.0), abs(difference.high or 0.0)))
    return (
        f"On your clips {ours} is {abs(points):.1f} points {outcome} than {theirs} "
        f"({100 * low:.1f} to {100 * high:.1f}, {_draws(difference.count)})."
    )


def _others_sentence(corrected: Mapping[str, MeanInterval], baseline: str) -> str:
    """The other methods beside the baseline, by what is shown of them."""
    names = {
        "better": "better",
        "worse": "worse",
        "no difference": "no difference shown",
        "too few draws": "cannot be said",
    }
    parts = []
    for outcome, title in names.items():
        found = [
            f"{method_words(method)} ({100 * interval.mean:+.1f}"
            + (f", {_span(interval)})" if outcome != "too few draws" else ")")
            for method, interval in corrected.items()
            if judge(interval) == outcome
        ]
        if found:
            parts.append(f"{title}: {', '.join(found)}")
    count = f" (intervals corrected for {len(corrected)} comparisons)" if len(corrected) > 1 else ""
    return f"Others beside {method_words(baseline)}{count}: {'; '.join(parts)}."


def _choose(
    by_method: Mapping[str, Group],
    shown: Mapping[str, MeanInterval],
    baseline: str,
    seconds: Mapping[str, float],
    unusable: Collection[str],
) -> str | None:
    usable = [name for name in by_method if name not in unusable]
    if baseline not in usable:
        means = {name: group.accuracy.mean for name in usable if (group := by_method[name]).accuracy is not None}
        return max(means, key=lambda name: means[name], default=None)
    better = [name for name in usable if name in shown and judge(shown[name]) == "better"]
    if better:
        return max(better, key=lambda name: shown[name].mean)
    cheaper = [
        name
        for name in usable
        if name in shown
        and shown[name].count >= FEWEST_RUNS
        and shown[name].mean > -_ROUNDING
        and name in seconds
        and seconds[name] < seconds.get(baseline, 0.0)
    ]
    return max(cheaper, key=lambda name: shown[name].mean, default=baseline)


def _floor_sentence(group: Group, method: str) -> str:
    """A warning where the method to take is no better than an answer that looks at nothing; else empty."""
    assert group.accuracy is not None
    floors = {"guessing": group.chance, "always naming the most frequent class": group.majority}
    known = {words: floor for words, floor in floors.items() if floor is not None}
    words = max(known, key=lambda name: known[name], default=None)
    if words is None or group.accuracy.mean > known[words] + _ROUNDING:
        return ""
    return (
        f"{_first(method)} is right on {group.accuracy.mean:.1%}, which is no better than {words} "
        f"({known[words]:.1%}): do not use it yet. Take a stronger model, or label more clips."
    )
