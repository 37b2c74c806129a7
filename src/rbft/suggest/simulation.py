"""How many labels a way of choosing clips saves, played through on clips whose labels are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbft.errors import DataError
from rbft.evaluation.linear_probe import UNCHOSEN, fit_probe
from rbft.evaluation.statistics import MeanInterval, mean_interval
from rbft.suggest.choose import at_random, badge, diverse, margin, typical
from rbft.suggest.clips import Seen

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
RANDOM = "random"
METHODS = (RANDOM, "diverse", "badge", "margin", "typiclust")
_HELD_OUT = 0.3  # of the clips, to measure on
_ROOM = 0.9  # of the others: groups are held out whole, which may be a few clips more
_MOST_STEPS = 14


@dataclass(frozen=True)
class Saving:
    """What a method saves beside another.

    Args:
        other: name of the other method.
        difference: mean difference of the accuracy over all steps, paired by draw, with its interval (95%).
        goal: mean accuracy of the other with all labels.
        needed: labels with which this method reaches it; None: it does not.
        other_needed: labels with which the other first reaches it.
        interval: 95% of the saved labels; minus infinity: it does not reach the goal.
        most: labels that the simulation ended with.
    """

    other: str
    difference: MeanInterval
    goal: float
    needed: int | None
    other_needed: int
    interval: tuple[float, float]
    most: int

    @property
    def _points(self) -> list[float]:
        """Mean difference in points and its interval, which two draws or more have."""
        bounds = (self.difference.mean, self.difference.low, self.difference.high)
        return [100 * value for value in bounds if value is not None]

    def describe(self) -> str:
        """In a sentence."""
        mean, low, high = self._points
        text = f"{mean:+.1f} points over {self.other} ({low:+.1f} to {high:+.1f}); "
        if self.needed is None:
            return text + f"it does not reach the {self.goal:.1%} of {self.other} with {self.most} labels"
        below, above = (f"{value:.0f}" if np.isfinite(value) else "not reached" for value in self.interval)
        text += f"{self.needed} labels reach the {self.goal:.1%} for which {self.other} takes {self.other_needed}"
        return f"{text} (saved {self.other_needed - self.needed}, 95% of resamples {below} to {above})"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; what is not reached is null."""
        return {
            "points_over_random": self._points,
            "goal": self.goal,
            "labels": self.needed,
            "labels_of_random": self.other_needed,
            "saved_ci95": [value if np.isfinite(value) else None for value in self.interval],
        }


@dataclass(frozen=True)
class Curve:
    """Accuracy by number of labels, of one way to choose.

    Args:
        method: name of the method.
        labels: numbers of labelled clips.
        accuracy: (draws, steps) accuracy of a linear probe on the clips held out.
    """

    method: str
    labels: tuple[int, ...]
    accuracy: Array

    @property
    def means(self) -> Array:
        """Mean over the draws (steps)."""
        return np.asarray(self.accuracy.mean(0))

    def needed(self, goal: float, draws: Sequence[int] | None = None) -> int | None:
        """The first number of labels whose mean accuracy reaches `goal`; None where none does.

        Args:
            goal: accuracy to reach.
            draws: draws to take the mean over, with repetition; None: all.
        """
        means = self.means if draws is None else self.accuracy[list(draws)].mean(0)
        reached = np.flatnonzero(means >= goal - 1e-12)
        return self.labels[int(reached[0])] if len(reached) else None

    def against(self, other: Curve, resamples: int = 2000) -> Saving:
        """How this method does beside another.

        Args:
            other: method to compare with, on the same draws.
            resamples: resamples of the draws for the interval of the saved labels (percentile bootstrap, Efron and
                Tibshirani 1993).
        """
        rng = np.random.default_rng(0)
        count = len(self.accuracy)
        goal = float(other.means[-1])
        difference = mean_interval((self.accuracy.mean(1) - other.accuracy.mean(1)).tolist())
        found = [self._saved(other, rng.integers(0, count, count).tolist()) for _ in range(resamples)]
        low, high = np.quantile(np.array(found), [0.025, 0.975], method="inverted_cdf").tolist()
        needed, theirs = self.needed(goal), other.needed(goal)
        assert theirs is not None, "it reaches its own last accuracy"
        return Saving(other.method, difference, goal, needed, theirs, (low, high), self.labels[-1])

    def _saved(self, other: Curve, draws: Sequence[int]) -> float:
        goal = float(other.accuracy[list(draws)].mean(0)[-1])
        mine, theirs = self.needed(goal, draws), other.needed(goal, draws)
        assert theirs is not None, "it reaches its own last accuracy"
        return -np.inf if mine is None else float(theirs - mine)


def measure(
    seen: Seen, count: int, draws: int, report: Callable[[str, int, int], None], seed: int = 0
) -> dict[str, Curve]:
    """Simulate on labelled clips that were looked at, in batches of `count` up to all that are not held out.

    Args:
        seen: labelled clips.
        count: labels of a batch, and to begin with.
        draws: number of repetitions.
        report: function that is called with the progress.
        seed: seed of the draws.

    Raises:
        DataError: There are too few clips.
    """
    records = [clip.record for clip in seen.clips if clip.record is not None]
    names = sorted({record.label for record in records})
    labels = np.array([names.index(record.label) for record in records], dtype=np.int64)
    groups = [record.group for record in records]
    steps = min(_MOST_STEPS, int((1 - _HELD_OUT) * _ROOM * len(labels)) // count - 1)
    if steps < 2:
        raise DataError(
            f"--simulate: {len(labels)} labelled clips are too few for batches of {count} beside the {_HELD_OUT:.0%} "
            "that are held out. Lower --count, or simulate with more clips."
        )
    return simulate(
        seen.features,
        labels,
        len(names),
        groups,
        first=count,
        step=count,
        steps=steps,
        draws=draws,
        report=report,
        seed=seed,
    )


def simulate(
    features: Array,
    labels: Ints,
    classes: int,
    groups: Sequence[str | None],
    *,
    first: int,
    step: int,
    steps: int,
    draws: int,
    methods: Sequence[str] = METHODS,
    report: Callable[[str, int, int], None] | None = None,
    seed: int = 0,
) -> dict[str, Curve]:
    """Label clips one batch after the other, as each method says, and measure after each.

    Every draw holds out three in ten groups. All methods begin with the same clips, drawn at random (TypiClust chooses
    its first clips, too: that is what it is for), and a linear probe on the visual features is fitted anew after each
    batch. Nothing of a clip's label is known before it is chosen.

    Args:
        features: (N, H) of the labelled clips.
        labels: (N,) class of each.
        classes: number of classes.
        groups: group of each clip; None: it stands alone.
        first: labels to begin with.
        step: labels of a batch.
        steps: number of batches.
        draws: number of repetitions.
        methods: names of the methods; `random` is one of them.
        report: function that is called with the progress.
        seed: seed of the draws.
    """
    numbers = tuple(first + step * number for number in range(steps + 1))
    curves: dict[str, list[list[float]]] = {method: [] for method in methods}
    for draw in range(draws):
        held, pool = _held_out(groups, np.random.default_rng([seed, draw]))
        for method in methods:
            rng = np.random.default_rng([seed, draw, 1])
            curves[method].append(_play(method, features, labels, classes, pool, held, numbers, rng))
        if report is not None:
            report("draws", draw + 1, draws)
    return {method: Curve(method, numbers, np.array(rows)) for method, rows in curves.items()}


def _held_out(groups: Sequence[str | None], rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Places of the clips to measure on, and of those to choose from, with no group in both."""
    names = np.array([f"{place}" if group is None else f"group {group}" for place, group in enumerate(groups)])
    order = rng.permutation(np.unique(names))
    counts = {name: int((names == name).sum()) for name in order}
    held, total = set(), 0
    for name in order:
        if total >= _HELD_OUT * len(names):
            break
        held.add(name)
        total += counts[name]
    inside = np.isin(names, list(held))
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _play(
    method: str,
    features: Array,
    labels: Ints,
    classes: int,
    pool: Ints,
    held: Ints,
    numbers: Sequence[int],
    rng: np.random.Generator,
) -> list[float]:
    """Accuracy on the clips held out after each batch."""
    seed = int(rng.integers(2**31))
    if method == "typiclust":
        known = pool[typical(features[pool], features[:0], numbers[0], seed)]
    else:
        known = rng.permutation(pool)[: numbers[0]]
    found = []
    for place, _ in enumerate(numbers):
        chances = _probabilities(features, labels, classes, known)
        found.append(float((chances[held].argmax(1) == labels[held]).mean()))
        if place + 1 < len(numbers):
            free = np.setdiff1d(pool, known)
            count = numbers[place + 1] - numbers[place]
            if method == "typiclust":
                chosen = typical(features[free], features[known], count, seed)
            else:
                chosen = _METHODS[method](features[free], chances[free], count, rng)
            known = np.concatenate([known, free[chosen]])
    return found


_METHODS: Mapping[str, Callable[[Array, Array, int, np.random.Generator], list[int]]] = {
    RANDOM: at_random,
    "diverse": diverse,
    "margin": margin,
    "badge": badge,
}


def _probabilities(features: Array, labels: Ints, classes: int, known: Ints) -> Array:
    """Probabilities (N, C) of a probe fitted to some clips; of their only class where they have but one."""
    if len(np.unique(labels[known])) < 2:
        rows = np.zeros((len(labels), classes))
        rows[:, labels[known[0]]] = 1.0
        return rows
    return np.exp(fit_probe(features[known], labels[known], classes, UNCHOSEN).log_probabilities(features))
