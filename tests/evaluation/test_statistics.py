"""Intervals, tests and corrections against values by hand or scipy, and how often they are right in simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from rbft.errors import DataError
from rbft.evaluation.predictions import Prediction, write_predictions
from rbft.evaluation.statistics import (
    McNemar,
    cautions,
    holm,
    mcnemar,
    mcnemar_files,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    videos_needed,
)


def predictions(right: str, labels: str = "") -> list[Prediction]:
    """One a character: `+` right, `-` wrong, `?` unreadable."""
    given = {"+": "a", "-": "b", "?": None}
    return [
        Prediction(str(number), f"{number}.mp4", labels[number] if labels else "a", given[sign], (), ())
        for number, sign in enumerate(right)
    ]


# -- means


def test_mean_interval_by_hand():
    found = mean_interval([0.90, 0.94, 0.95])
    # 0.93 -+ 4.302653 x 0.026458 / sqrt(3)
    assert (found.mean, found.count) == (pytest.approx(0.93), 3)
    assert (found.low, found.high) == (pytest.approx(0.864276, abs=1e-6), pytest.approx(0.995724, abs=1e-6))
    low, high = stats.ttest_1samp([0.90, 0.94, 0.95], 0).confidence_interval(0.9)
    found = mean_interval([0.90, 0.94, 0.95], confidence=0.9)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_single_run_has_no_interval():
    found = mean_interval([0.9])
    assert (found.mean, found.low, found.high, found.count) == (0.9, None, None, 1)


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5, float("inf")], [[0.5]]])
def test_figures_must_be_figures(values):
    with pytest.raises(ValueError, match="finite figures"):
        mean_interval(values)


def test_mean_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = mean_interval(rng.normal(0.7, 0.05, 3).tolist())
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.7 <= found.high
    assert 0.935 <= hits / 2000 <= 0.965


# -- paired differences


def test_paired_difference_by_hand():
    found = paired_difference([0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.6, 0.5])
    # 0.1 0.1 0.1 0.4: of 16 sign patterns, all plus and all minus are as far from 0
    assert found.difference.mean == pytest.approx(0.175)
    assert found.p_permutation == pytest.approx(2 / 16)
    assert found.p_sign == pytest.approx(2 / 16)
    assert (found.wins, found.losses) == (4, 0)
    assert found.bootstrap is not None and 0.1 <= found.bootstrap[0] < 0.175 < found.bootstrap[1] <= 0.4
    other = paired_difference([0.8, 0.7, 0.6, 0.5], [0.9, 0.8, 0.7, 0.9])
    assert other.p_permutation == found.p_permutation
    assert (other.wins, other.losses, other.difference.mean) == (0, 4, pytest.approx(-0.175))


def test_permutations_as_scipy_counts_them():
    rng = np.random.default_rng(1)
    for count in (2, 5, 9, 12):
        ours, theirs = rng.normal(0.1, 1, count), rng.normal(0, 1, count)
        expected = stats.permutation_test(
            (ours - theirs,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True
        ).pvalue
        assert paired_difference(ours, theirs).p_permutation == pytest.approx(expected)


def test_many_pairs_are_permuted_at_random_and_the_same_every_time():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    found = paired_difference(ours, theirs)
    assert found == paired_difference(ours, theirs)
    assert found.p_permutation == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.01)
    assert paired_difference(np.ones(40), np.zeros(40)).p_permutation == pytest.approx(1 / 20_001)


def test_no_difference_at_all():
    found = paired_difference([0.5, 0.6], [0.5, 0.6])
    assert (found.p_permutation, found.p_sign, found.bootstrap, found.wins, found.losses) == (1.0, 1.0, None, 0, 0)


def test_rounding_breaks_no_ties():
    # 0.9 - 0.8 and 0.3 - 0.2 are the same difference, though not in floating point
    assert paired_difference([0.9, 0.2], [0.8, 0.3]).p_permutation == 1.0
    assert paired_difference([0.8], [0.1 + 0.7]).losses == 0


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="2 figures against 1"):
        paired_difference([0.5, 0.6], [0.5])


def test_bootstrap_is_scipys_and_covers_the_truth():
    rng = np.random.default_rng(3)
    hits, many = 0, 150
    for _ in range(many):
        changes = rng.gamma(2.0, 0.02, 30)  # skewed, of mean 0.04
        found = paired_difference(changes, np.zeros(30)).bootstrap
        assert found is not None
        hits += found[0] <= 0.04 <= found[1]
    assert 0.88 <= hits / many <= 0.99
    changes = np.round(changes, 12)
    expected = stats.bootstrap((changes,), np.mean, method="BCa", n_resamples=10_000, rng=np.random.default_rng(0))
    assert found == (pytest.approx(expected.confidence_interval.low), pytest.approx(expected.confidence_interval.high))


@pytest.mark.parametrize("count", [6, 25])
def test_chance_differences_are_called_real_no_more_often_than_stated(count):
    rng = np.random.default_rng(4)
    many = 200
    tests = [paired_difference(rng.normal(0.7, 0.05, count), rng.normal(0.7, 0.05, count)) for _ in range(many)]
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / many)
    assert sum(test.p_permutation <= 0.05 for test in tests) / many <= bound
    assert sum(test.p_sign <= 0.05 for test in tests) / many <= bound
    # and it is a test: a difference that is there is found
    real = [paired_difference(rng.normal(0.8, 0.05, count), rng.normal(0.7, 0.05, count)) for _ in range(50)]
    assert sum(test.p_permutation <= 0.05 for test in real) >= 25


# -- the same test videos


def test_mcnemar_by_hand():
    found = mcnemar(predictions("+++++++-+-?"), predictions("-------+++?"))
    assert (found.only_ours, found.only_baseline, found.videos) == (7, 2, 11)
    # 2 x (1 + 9 + 36) / 2^9
    assert found.p == pytest.approx(92 / 512)
    assert found.difference == pytest.approx(5 / 11) and found.discordance == pytest.approx(9 / 11)
    assert mcnemar(predictions("+-"), predictions("+-")).p == 1.0


def test_mcnemar_reads_files_in_any_order(tmp_path):
    ours, theirs = predictions("++-+"), predictions("-+--")
    write_predictions(tmp_path / "ours.jsonl", ours[::-1])
    write_predictions(tmp_path / "theirs.jsonl", theirs)
    assert mcnemar_files(tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl") == mcnemar(ours, theirs)


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    write_predictions(tmp_path / "ours.jsonl", predictions("++-"))
    write_predictions(tmp_path / "theirs.jsonl", predictions("++"))
    with pytest.raises(
        DataError, match=r"ours\.jsonl and .*theirs\.jsonl cannot be compared: .* run them again.*pool_shots"
    ):
        mcnemar_files(tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl")


def test_mcnemar_refuses_other_videos_and_labels():
    with pytest.raises(DataError, match=r"not tested on the same videos: 1 are .*'2'"):
        mcnemar(predictions("+++"), predictions("++"))
    with pytest.raises(DataError, match="different labels for '1'"):
        mcnemar(predictions("++", "aa"), predictions("++", "ab"))
    with pytest.raises(DataError, match="no predictions"):
        mcnemar([], [])


def test_mcnemar_is_right_as_often_as_it_says():
    rng = np.random.default_rng(5)
    many, false = 1000, 0
    for _ in range(many):
        both = rng.random((2, 200)) < 0.7
        rows = ["".join("+" if right else "-" for right in row) for row in both]
        false += mcnemar(predictions(rows[0]), predictions(rows[1])).p <= 0.05
    assert false / many <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / many)


def test_so_many_videos_show_the_difference():
    # ours is right where the baseline is not on 15%, and the other way round on 5%
    needed = videos_needed(0.1, 0.2)
    assert needed == 155
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(1000):
        better, worse, _ = rng.multinomial(needed, [0.15, 0.05, 0.8])
        found += stats.binomtest(int(better), int(better + worse)).pvalue <= 0.05
    # the exact test needs a little more than the approximation
    assert 0.7 <= found / 1000 <= 0.85
    assert videos_needed(0.0, 0.2) is None
    assert videos_needed(-0.1, 0.2) == needed
    assert videos_needed(0.1, 0.0) == videos_needed(0.1, 0.1), "there is no difference without discordance"


# -- several comparisons, and what could have been found


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_detectable_difference_is_found_so_often():
    changes = [0.01, 0.03, -0.02, 0.04, 0.0]
    found = minimal_detectable_difference(changes)
    assert found is not None
    rng = np.random.default_rng(7)
    samples = rng.normal(found, np.std(changes, ddof=1), (4000, len(changes)))
    assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05) == pytest.approx(0.8, abs=0.025)
    more = minimal_detectable_difference(changes, power=0.95)
    assert more is not None and more > found
    assert minimal_detectable_difference([0.1]) is None
    assert minimal_detectable_difference([0.1, 0.1, 0.1]) == pytest.approx(0.0)


def test_cautions_tell_what_is_too_little():
    small = McNemar(only_ours=12, only_baseline=8, videos=196, p=0.5)
    assert cautions(3, [small] * 3)[0].startswith("196 test videos are too few for a difference of +2.0 points")
    assert [text.split(":")[0] for text in cautions(2, [])] == ["2 pairs of runs"]
    large = dataclasses.replace(small, only_ours=60)
    assert cautions(3, [large] * 3) == []
