"""Every clip once an epoch, the same number of batches on every rank, and a place that can be come back to."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbft.data.sampler import Draw, EvaluationSampler, TrainSampler

sizes = st.integers(1, 60)
batches = st.integers(1, 5)
accumulates = st.integers(1, 4)
worlds = st.integers(1, 4)
seeds = st.integers(0, 2**31)


def train(n: int, batch: int, accumulate: int, rank: int, world: int, seed: int = 0) -> TrainSampler:
    lengths = [i * 7 % 11 for i in range(n)]
    return TrainSampler([1.0 + i % 3 for i in range(n)], lengths, batch, accumulate, rank, world, seed)


def drawn(sampler: TrainSampler, epoch: int) -> list[list[Draw]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@settings(deadline=None)
@given(sizes, batches, accumulates, worlds, seeds, st.integers(0, 5))
def test_each_clip_stands_once_in_an_epoch_over_all_ranks(n, batch, accumulate, world, seed, epoch):
    samplers = [train(n, batch, accumulate, rank, world, seed) for rank in range(world)]
    ranks = [drawn(sampler, epoch) for sampler in samplers]
    counts = Counter(row.clip for rank in ranks for rows in rank for row in rows if row.weight)
    assert counts == Counter(range(n))
    assert {row.weight for rank in ranks for rows in rank for row in rows} <= {0.0, 1.0}
    assert {len(rank) for rank in ranks} == {len(samplers[0])}
    assert len(samplers[0]) == accumulate * samplers[0].steps
    assert samplers[0].steps == math.ceil(n / (batch * world * accumulate))
    for micro in zip(*ranks, strict=True):
        # no rank may wait for a row that another does not compute, and none may get more than memory allows
        assert len({len(rows) for rows in micro}) == 1
        assert 1 <= len(micro[0]) <= batch


@settings(deadline=None)
@given(sizes, batches, accumulates, worlds)
def test_normaliser_is_the_sum_over_the_whole_step(n, batch, accumulate, world):
    ranks = [drawn(train(n, batch, accumulate, rank, world), 0) for rank in range(world)]
    tokens: dict[int, float] = defaultdict(float)
    stated: dict[int, set[float]] = defaultdict(set)
    for rank in ranks:
        for position, rows in enumerate(rank):
            for row in rows:
                tokens[position // accumulate] += row.weight * (1.0 + row.clip % 3)
                stated[position // accumulate].add(row.normalizer)
    assert {step: {total} for step, total in tokens.items()} == stated


@settings(deadline=None)
@given(sizes, batches, accumulates, st.integers(1, 3), seeds, st.data())
def test_a_resumed_epoch_is_exactly_the_rest_and_the_next_is_whole(n, batch, accumulate, world, seed, data):
    whole = train(n, batch, accumulate, world - 1, world, seed)
    done = data.draw(st.integers(0, len(whole)))
    resumed = train(n, batch, accumulate, world - 1, world, seed)
    resumed.resume(2, done)
    assert drawn(resumed, 2) == drawn(whole, 2)[done:]
    assert drawn(resumed, 3) == drawn(whole, 3)
    assert len(resumed) == len(whole)


def test_length_stays_that_of_the_whole_epoch_while_resuming():
    sampler = train(10, 2, 1, 0, 1)
    sampler.resume(0, 3)
    assert len(sampler) == 5


def test_a_place_in_another_epoch_is_left_alone():
    sampler, other = train(10, 2, 1, 0, 1), train(10, 2, 1, 0, 1)
    sampler.resume(1, 3)
    assert drawn(sampler, 0) == drawn(other, 0)
    assert drawn(sampler, 1) == drawn(other, 1)[3:]


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        return [row.clip for rows in drawn(train(30, 4, 1, 0, 1, seed), epoch) for row in rows if row.weight]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 0) != sorted(order(0, 0))


@pytest.mark.parametrize(("batch", "accumulate", "world"), [(1, 8, 1), (2, 2, 2), (8, 1, 1), (4, 1, 2), (1, 1, 8)])
def test_a_step_holds_the_same_examples_however_it_is_cut(batch, accumulate, world):
    ranks = [drawn(train(20, batch, accumulate, rank, world), 1) for rank in range(world)]
    step = {row.clip for rank in ranks for rows in rank[:accumulate] for row in rows if row.weight}
    assert step == {row.clip for row in drawn(train(20, 8, 1, 0, 1), 1)[0]}


def test_each_row_has_chance_of_its_own_that_returns():
    rows = [row for rows in drawn(train(12, 4, 1, 0, 1), 0) for row in rows]
    assert len({row.seed for row in rows}) == 12
    again = [row for rows in drawn(train(12, 2, 2, 0, 1), 0) for row in rows]
    assert {row.clip: row.seed for row in rows} == {row.clip: row.seed for row in again}
    later = [row for rows in drawn(train(12, 4, 1, 0, 1), 1) for row in rows]
    assert not {row.seed for row in rows} & {row.seed for row in later}


@settings(deadline=None)
@given(st.integers(0, 60), batches, worlds)
def test_evaluation_takes_each_example_once_with_equal_numbers_of_batches(size, batch, world):
    samplers = [EvaluationSampler(size, batch, rank, world) for rank in range(world)]
    ranks = [list(sampler) for sampler in samplers]
    counts = Counter(row.clip for rank in ranks for rows in rank for row in rows if row.weight > 0)
    assert counts == Counter(range(size))
    assert {len(rank) for rank in ranks} == {len(samplers[0])} == {math.ceil(size / (batch * world))}
    assert all(1 <= len(rows) <= batch for rank in ranks for rows in rank)
    # of a model that is spread over them, they compute every clip together
    assert all(len({len(rows) for rows in together}) == 1 for together in zip(*ranks, strict=True))
    assert all(0 <= row.clip < size for rank in ranks for rows in rank for row in rows)


def test_evaluation_keeps_the_order_of_the_examples():
    rows = [row for rows in EvaluationSampler(7, 3, 0, 1) for row in rows]
    assert [row.clip for row in rows] == list(range(7))
    assert list(EvaluationSampler(7, 3, 0, 1)) == list(EvaluationSampler(7, 3, 0, 1))


def test_clips_of_like_length_come_into_one_micro_batch():
    lengths = [9, 1, 8, 2, 7, 3, 6, 4]
    ranks = [drawn(TrainSampler([1.0] * 8, lengths, 2, 2, rank, 2, seed=3), 0) for rank in range(2)]
    pairs = [sorted(lengths[row.clip] for row in rows) for rank in ranks for rows in rank]
    assert sorted(pairs) == [[1, 2], [3, 4], [6, 7], [8, 9]]
