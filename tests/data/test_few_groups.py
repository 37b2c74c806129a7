"""Few groups with many clips: whole groups are kept for validation and test, and advice is taken."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.data.splits import make_splits
from rbft.errors import DataError

PEOPLE = ("anna", "ben", "carla", "dan")


def clips(people, sizes, split=None, classes="xy"):
    """Each person with so many clips of each class."""
    return [
        VideoRecord(f"{person}/{label}{i}", f"{person}/{label}{i}.mp4", label, split, person)
        for person, size in zip(people, sizes, strict=True)
        for label in classes
        for i in range(size)
    ]


def cut(records, **options):
    return make_splits(records, LabelSet.from_records(records), **options)


def counts(records):
    return Counter(record.label for record in records)


def groups(records):
    return {record.group for record in records}


def apart(splits):
    sides = [groups(part) for part in (splits.train, splits.val, splits.test)]
    return sum(map(len, sides)) == len(set().union(*sides))


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("sizes", [(9, 9, 9, 9), (6, 8, 9, 7)])
def test_four_people(draw, sizes):
    splits = cut(clips(PEOPLE, sizes), shots=6, val_shots=3, draw=draw)
    assert counts(splits.train) == {"x": 6, "y": 6}
    assert counts(splits.val) == {"x": 3, "y": 3}
    assert set(counts(splits.test)) == {"x", "y"}
    assert len(groups(splits.train)) == 2
    assert apart(splits)


@pytest.mark.parametrize("options", [{"val_shots": 0}, {}, {"val_fraction": 0.0}])
def test_two_people_train_on_one_and_test_on_the_other(options):
    splits = cut(clips(PEOPLE[:2], (9, 9)), shots=4, **options)
    assert counts(splits.train) == {"x": 4, "y": 4}
    assert counts(splits.test) == {"x": 9, "y": 9}
    assert splits.val == ()


def test_validation_by_a_fraction_gets_a_person_where_there_are_three():
    splits = cut(clips(PEOPLE[:3], (9, 9, 9)), shots=6)
    assert [len(groups(part)) for part in (splits.train, splits.val, splits.test)] == [1, 1, 1]


def test_stated_sides_need_no_group():
    tested = clips(("tom",), (5,), "test")
    splits = cut(clips(PEOPLE[:2], (9, 9), "train") + tested, shots=6, val_shots=5)
    assert (len(groups(splits.train)), len(groups(splits.val)), splits.test) == (1, 1, tuple(tested))
    held = clips(("tom",), (5,), "val")
    splits = cut(clips(PEOPLE[:2], (9, 9)) + held, shots=6)
    assert (len(groups(splits.train)), splits.val, len(groups(splits.test))) == (1, tuple(held), 1)


def test_validation_shots_leave_a_person_to_train_without_shots():
    splits = cut(clips(PEOPLE, (9, 9, 9, 9)), shots=None, val_shots=3)
    assert counts(splits.val) == {"x": 3, "y": 3}
    assert apart(splits)
    assert set(counts(splits.train)) == {"x", "y"}


def test_fewer_shots_are_among_more_shots():
    records = clips(PEOPLE, (9, 9, 9, 9))
    before = set()
    for shots in (1, 2, 4, 6, 9, 12, 18):
        train = set(cut(records, shots=shots, val_shots=3, draw=1).train)
        assert before < train
        before = train


def test_a_sweep_up_to_the_pool_keeps_test_and_validation():
    records = clips(PEOPLE, (9, 9, 9, 9))
    most = cut(records, shots=12, val_shots=3)
    for shots in (1, 5, 11):
        fewer = cut(records, shots=shots, pool_shots=12, val_shots=3)
        assert (fewer.val, fewer.test) == (most.val, most.test)
        assert set(fewer.train) < set(most.train)


def test_the_message_names_the_groups_and_what_would_do():
    records = clips(PEOPLE, (9, 9, 9, 9))
    with pytest.raises(DataError) as error:
        cut(records, shots=20, val_shots=3)
    text = str(error.value)
    assert "36 are of 4 groups" in text
    assert all(f"'{person}' (9)" in text for person in PEOPLE)
    assert "lower data.shots to at most 18" in text.lower()
    assert "lower data.val_shots to at most 0" in text
    assert "of other groups" in text


def test_one_person_is_told_to_find_another():
    with pytest.raises(DataError, match=r"9 are of 1 group, 'anna' \(9\); .* Add videos .* of other groups"):
        cut(clips(PEOPLE[:1], (9,)), shots=3)


def advised(text):
    """The settings of each way that a message advises."""
    for way in re.split(r"(?:, or |[,.] )(?=[Ll]ower|[Ss]et|[Aa]dd|[Ll]eave)", text):
        found = {key: int(number) for key, number in re.findall(r"data\.(\w+) to (?:at most )?(\d+)", way)}
        found |= {"shots": found["pool_shots"]} if "data.shots and data.pool_shots" in way else {}
        if found:
            yield found


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=6, max_size=40),
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([None, 0, 2, 5]),
    st.sampled_from([None, 0, 3]),
)
def test_advised_numbers_are_accepted(rows, grouped, shots, val_shots, more):
    records = [
        VideoRecord(f"v{i}", f"v{i}.mp4", "xy"[label], group=f"g{group}" if grouped else None)
        for i, (label, group) in enumerate([(0, 0), (1, 0), *rows])
    ]
    options = {"shots": shots, "val_shots": val_shots, "pool_shots": None if more is None else shots + more}
    try:
        cut(records, **options)
    except DataError as error:
        for change in advised(str(error)):
            cut(records, **options | change)
