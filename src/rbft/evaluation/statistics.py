"""What a few repeated runs can and cannot show: intervals, tests against a baseline, detectable differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from rbft.errors import DataError
from rbft.evaluation.predictions import Prediction, read_predictions

_EXACT_SIGNS = 16
"""Pairs that differ up to which all 2^n sign patterns are counted; above, `_DRAWS` random ones are."""
_DRAWS = 20_000
_RESAMPLES = 10_000
FEWEST_RUNS = 3
"""Below so many seeds or draws, a spread is hardly known at all."""


@dataclass(frozen=True)
class MeanInterval:
    """The mean of repeated runs.

    Args:
        mean: mean of the values.
        low: lower end of the interval; None for a single value, which says nothing of the spread.
        high: upper end; None likewise.
        count: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> MeanInterval:
    """Mean and interval over seeds or draws (Student 1908: t with n - 1 degrees of freedom).

    It holds for runs that are independent of each other and roughly normal; test videos shared by all runs are not
    part of the spread, so it speaks of other seeds and draws and not of other test videos.
    """
    data = _numbers(values)
    if len(data) == 1:
        return MeanInterval(float(data[0]), None, None, 1)
    # rounding would give figures that are all alike a spread, and so an interval that leaves out 0
    spread = 0.0 if (data == data[0]).all() else float(data.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(data) - 1)) * spread / math.sqrt(len(data))
    mean = fmean(data.tolist())
    return MeanInterval(mean, mean - half, mean + half, len(data))


@dataclass(frozen=True)
class PairedDifference:
    """How much better than a baseline, pair by pair.

    Args:
        difference: mean and Student-t interval of ours - baseline.
        bootstrap: interval of the mean by bootstrap of the pairs (BCa); None where all pairs differ alike.
        p_permutation: p-value of the two-sided sign-flip test of the mean.
        p_sign: p-value of the two-sided exact sign test of the number of wins, ties left out.
        wins: number of pairs in which ours is better.
        losses: number of pairs in which the baseline is better.
    """

    difference: MeanInterval
    bootstrap: tuple[float, float] | None
    p_permutation: float
    p_sign: float
    wins: int
    losses: int


def paired_difference(
    ours: Sequence[float], baseline: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Compare two methods on the same seeds and draws, or on the same test videos (as 1 for right and 0 for wrong).

    The bootstrap resamples pairs and is bias-corrected and accelerated (Efron 1987, by `scipy.stats.bootstrap`). With
    fewer than some twenty pairs it is too narrow: of five normal pairs it covers the truth about 82 times in 100. The
    permutation test (Fisher 1935) flips the sign of each difference; it is exact for up to 16 pairs that differ and
    drawn at random above, counting the observed pattern among the draws (Phipson and Smyth 2010). The sign test is
    Dixon and Mood's (1946). With n pairs neither can give less than 2^(1-n): 0.06 for five.

    Args:
        ours: our figure of each pair.
        baseline: figures of the baseline, in the same order.
        confidence: confidence level of both intervals.
        seed: seed of the resampling; the same runs give the same figures.

    Raises:
        ValueError: The two differ in length, are empty, or hold a figure that is not finite.
    """
    if len(ours) != len(baseline):
        raise ValueError(f"{len(ours)} figures against {len(baseline)}: pairs are needed.")
    # figures as different as 0.9 - 0.8 and 0.3 - 0.2 differ only by rounding, and would break ties in the permutations
    changes = np.round(_numbers(ours) - _numbers(baseline), 12)
    wins, losses = int((changes > 0).sum()), int((changes < 0).sum())
    interval: tuple[float, float] | None = None
    if len(np.unique(changes)) > 1:
        bounds = stats.bootstrap(
            (changes,),
            np.mean,
            confidence_level=confidence,
            n_resamples=_RESAMPLES,
            method="BCa",
            batch=max(1, 2_000_000 // len(changes)),
            rng=np.random.default_rng(seed),
        ).confidence_interval
        interval = (float(bounds.low), float(bounds.high))
    return PairedDifference(
        difference=mean_interval(changes.tolist(), confidence),
        bootstrap=interval,
        p_permutation=_sign_flips(changes[changes != 0], seed),
        p_sign=float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        wins=wins,
        losses=losses,
    )


def _sign_flips(changes: NDArray[np.float64], seed: int) -> float:
    """Two-sided p-value of the mean under random signs (n,); pairs without a difference change nothing in it."""
    if not len(changes):
        return 1.0
    observed = abs(changes.sum()) - 1e-9
    if len(changes) <= _EXACT_SIGNS:
        # the mirror image of a pattern is as far from 0: half of them are enough
        signs = np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=len(changes) - 1)])
        return float((np.abs(signs @ changes) >= observed).mean())
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (_DRAWS, len(changes)), dtype=np.int8) * 2 - 1
    return float(((np.abs(signs @ changes) >= observed).sum() + 1) / (_DRAWS + 1))


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same test videos.

    Args:
        only_ours: number of videos that only ours has right.
        only_baseline: number of videos that only the baseline has right.
        videos: number of all videos.
        p: two-sided exact p-value.
    """

    only_ours: int
    only_baseline: int
    videos: int
    p: float

    @property
    def difference(self) -> float:
        """Accuracy of ours less that of the baseline."""
        return (self.only_ours - self.only_baseline) / self.videos

    @property
    def discordance(self) -> float:
        """Part of the videos on which exactly one is right."""
        return (self.only_ours + self.only_baseline) / self.videos


class NotTheSame(DataError):
    """Two runs that were not tested on the same videos with the same labels."""


def mcnemar(ours: Sequence[Prediction], baseline: Sequence[Prediction]) -> McNemar:
    """Exact McNemar test (1947; binomial on the videos that exactly one classifier has right).

    Unreadable videos are wrong for both. It speaks of these two trained models, not of their methods: another seed is
    another model.

    Raises:
        NotTheSame: They are not about the same videos with the same labels.
        DataError: There are none.
    """
    our_rows = {row.id: (row.label, row.predicted == row.label) for row in ours}
    base_rows = {row.id: (row.label, row.predicted == row.label) for row in baseline}
    if stray := sorted(our_rows.keys() ^ base_rows.keys()):
        raise NotTheSame(
            f"the two runs were not tested on the same videos: {len(stray)} are in one of them only, "
            f"first {stray[0]!r}. Test both on the same split."
        )
    if not our_rows:
        raise DataError("there are no predictions to compare.")
    if other := sorted(key for key in our_rows if our_rows[key][0] != base_rows[key][0]):
        raise NotTheSame(f"the two runs have different labels for {other[0]!r}.")
    better = sum(our_rows[key][1] and not base_rows[key][1] for key in our_rows)
    worse = sum(base_rows[key][1] and not our_rows[key][1] for key in our_rows)
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return McNemar(better, worse, len(our_rows), p)


def mcnemar_files(ours: Path, baseline: Path) -> McNemar:
    """`mcnemar` of two predictions.jsonl.

    Raises:
        DataError: They are not about the same videos with the same labels; names both files.
    """
    try:
        return mcnemar(read_predictions(ours), read_predictions(baseline))
    except NotTheSame as error:
        raise DataError(
            f"{ours} and {baseline} cannot be compared: {error} If the data set has changed meanwhile, run them again "
            "with the commands that made them (rbft sweep with --verify). If it is their settings that leave them "
            "other videos to test on, such as data.shots or data.val_shots, give both one data.pool_shots or a test "
            "split of your own, or name a baseline of the same settings."
        ) from error


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for having made all these comparisons (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = running
    return corrected


def minimal_detectable_difference(
    differences: Sequence[float], power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference that a paired t-test over so many pairs of this spread finds with this power.

    Noncentral t (Cohen 1988, chapter 2), with the observed standard deviation taken for the true one.

    Args:
        differences: ours - baseline, one a pair.
        power: chance of finding the difference.
        alpha: two-sided level of the test.

    Returns:
        A difference in the unit of the differences; None for fewer than two pairs.
    """
    data = _numbers(differences)
    count = len(data)
    if count < 2:
        return None
    bound = stats.t.ppf(1 - alpha / 2, count - 1)

    def lack(effect: float) -> float:
        """How far the power at this noncentrality is from the one wanted."""
        return float(stats.nct.sf(bound, count - 1, effect) + stats.nct.sf(bound, count - 1, -effect) - power)

    upper = float(bound) + 2.0
    while lack(upper) < 0:
        upper *= 2
    return float(optimize.brentq(lack, 0.0, upper) * data.std(ddof=1) / math.sqrt(count))


def videos_needed(difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Test videos on which McNemar's test finds an accuracy difference with this power (Connor 1987).

    Args:
        difference: difference of the two accuracies.
        discordance: share of the videos on which exactly one of the two is right; at least the difference.
        power: chance of finding the difference.
        alpha: two-sided level of the test.

    Returns:
        A number of videos; None where there is no difference to find.
    """
    gap = abs(difference)
    if gap == 0:
        return None
    split = max(discordance, gap)
    level, chance = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    return math.ceil((level * math.sqrt(split) + chance * math.sqrt(split - gap**2)) ** 2 / gap**2)


def cautions(pairs: int, tests: Sequence[McNemar]) -> list[str]:
    """Cautions for a reader of a comparison: too few runs, or too few test videos for the difference.

    Args:
        pairs: number of seeds and draws that both methods have.
        tests: McNemar's test of each of these pairs.
    """
    remarks = []
    if pairs < FEWEST_RUNS:
        what = "1 pair of runs" if pairs == 1 else f"{pairs} pairs of runs"
        remarks.append(f"{what}: fewer than {FEWEST_RUNS} seeds or draws say little about others")
    if tests:
        difference = sum(test.difference for test in tests) / len(tests)
        discordance = sum(test.discordance for test in tests) / len(tests)
        needed, videos = videos_needed(difference, discordance), min(test.videos for test in tests)
        if needed is not None and needed > videos:
            remarks.append(
                f"{videos} test videos are too few for a difference of {100 * difference:+.1f} points between "
                f"two runs; about {needed} would show it"
            )
    return remarks


def _numbers(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise ValueError(f"expected one or more finite figures, got {list(values)!r}.")
    return data
