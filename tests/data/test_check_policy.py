"""Unreadable videos: refused, left out or replaced by their own class, and never good for a better result."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbft.data.bad_videos import apply_policy
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits, make_splits
from rbft.errors import DataError

LABELS = LabelSet(("x", "y"))


def rows(side, count, labels="xy", group=None, split=None):
    return tuple(
        VideoRecord(f"{side}-{label}{i}", f"{side}/{label}{i}.mp4", label, split, group)
        for label in labels
        for i in range(count)
    )


def cut(train=2, val=1, test=3, unused=2):
    return Splits(rows("train", train), rows("val", val), rows("test", test), rows("unused", unused))


def ids(records):
    return [record.id for record in records]


def bad(*names):
    return dict.fromkeys(names, "is empty (0 bytes)")


@pytest.mark.parametrize("policy", ["error", "skip", "replace_same_class"])
def test_nothing_bad_changes_nothing(policy):
    splits = cut()
    assert apply_policy(splits, LABELS, bad("unused-x0"), policy, shots=2) == (splits, ())


def test_error_names_five_with_reasons():
    splits = cut(test=20)
    named = ids(splits.test)[:7]
    with pytest.raises(DataError) as caught:
        apply_policy(splits, LABELS, bad(*named), "error")
    message = str(caught.value)
    assert "7 of 46 videos cannot be read" in message and "and 2 more" in message and "data.on_bad_video" in message
    assert message.count("is empty (0 bytes)") == 5 and "test/x0.mp4" in message


def test_skip_leaves_training_and_validation_and_keeps_test_apart():
    splits = cut()
    kept, wrong = apply_policy(splits, LABELS, bad("train-x0", "val-y0", "test-x1"), "skip")
    assert ids(kept.train) == ["train-x1", "train-y0", "train-y1"]
    assert ids(kept.val) == ["val-x0"]
    assert ids(wrong) == ["test-x1"] and "test-x1" not in ids(kept.test) and len(kept.test) == 5
    assert {"train-x0", "val-y0"} <= set(ids(kept.unused)) and "test-x1" not in ids(kept.unused)


@pytest.mark.parametrize(("shots", "names"), [(2, ["train-x0"]), (None, ["train-x0", "train-x1"])])
def test_skip_refuses_a_class_below_its_shots(shots, names):
    with pytest.raises(DataError, match="the class 'x' keeps"):
        apply_policy(cut(), LABELS, bad(*names), "skip", shots=shots)


def test_replacement_is_the_next_readable_of_the_class_in_the_same_place():
    kept, wrong = apply_policy(cut(), LABELS, bad("train-y0", "unused-y0", "test-x0"), "replace_same_class", shots=2)
    assert ids(kept.train) == ["train-x0", "train-x1", "unused-y1", "train-y1"]
    assert ids(kept.unused) == ["train-y0", "unused-x0", "unused-x1", "unused-y0"]
    assert ids(wrong) == ["test-x0"]


def test_the_pool_says_who_is_next():
    splits = cut()
    kept, _ = apply_policy(splits, LABELS, bad("train-x0"), "replace_same_class", pool=splits.unused[::-1])
    assert ids(kept.train)[0] == "unused-x1"


@pytest.mark.parametrize(
    "candidate",
    [
        VideoRecord("c", "c.mp4", "y"),  # another class
        VideoRecord("c", "c.mp4", "x", split="test"),
        VideoRecord("c", "c.mp4", "x", split="val"),
        VideoRecord("c", "c.mp4", "x", group="tested"),
        VideoRecord("test-x0", "test/x0.mp4", "x"),  # is tested on
    ],
)
def test_what_must_not_replace(candidate):
    tested = rows("test", 3, group="tested")
    splits = Splits(rows("train", 2), (), tested, (candidate,))
    with pytest.raises(DataError, match="no unused readable video left"):
        apply_policy(splits, LABELS, bad("train-x0"), "replace_same_class")


def test_two_do_not_get_the_same_replacement():
    with pytest.raises(DataError, match=r"train/x1\.mp4"):
        apply_policy(cut(unused=1), LABELS, bad("train-x0", "train-x1"), "replace_same_class")


@pytest.mark.parametrize("policy", ["skip", "replace_same_class"])
@pytest.mark.parametrize(
    ("size", "broken", "refused"), [(50, 1, False), (50, 2, True), (49, 5, False), (150, 3, False), (150, 4, True)]
)
@pytest.mark.parametrize("side", ["train", "val", "test"])
def test_more_than_one_in_a_hundred_is_refused(policy, size, broken, refused, side):
    """`size` is of each of two classes."""
    splits = cut(size, size, size, unused=10)
    named = bad(*ids(getattr(splits, side))[:broken])
    if refused:
        with pytest.raises(DataError, match=rf"{broken} of {2 * size} {side} videos cannot be read, more than 1%"):
            apply_policy(splits, LABELS, named, policy)
    else:
        apply_policy(splits, LABELS, named, policy)


@st.composite
def cases(draw):
    count = draw(st.integers(12, 40))
    records = [
        VideoRecord(
            f"v{i:02d}",
            f"v{i:02d}.mp4",
            draw(st.sampled_from("xy")),
            draw(st.sampled_from([None, None, "train", "test"])),
            draw(st.sampled_from([None, "g", "h", "k"])),
        )
        for i in range(count)
    ]
    return records, set(draw(st.lists(st.sampled_from([record.id for record in records]), max_size=5)))


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 3))
def test_whatever_is_bad_the_split_stays_sound(case, shots):
    records, broken = case
    try:
        splits = make_splits(records, LABELS, shots=shots)
    except DataError:
        return
    for policy in ("skip", "replace_same_class"):
        try:
            kept, wrong = apply_policy(splits, LABELS, bad(*broken), policy, shots=shots)
        except DataError:
            continue
        parts = [*kept.train, *kept.val, *kept.test, *wrong, *kept.unused]
        assert sorted(ids(parts)) == sorted(ids(records))
        assert not broken & set(ids([*kept.train, *kept.val, *kept.test]))
        assert Counter(r.label for r in kept.train) == Counter(r.label for r in splits.train)
        assert set(ids(kept.test)) | set(ids(wrong)) == set(ids(splits.test))
        assert set(kept.val) <= set(splits.val)
        held_out = {record.group for record in (*splits.val, *splits.test)} - {None}
        assert not held_out & {record.group for record in kept.train}
