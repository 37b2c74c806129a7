"""UCF101's official lists."""

from __future__ import annotations

import pytest

from rbft.data.formats import UCF101
from rbft.data.labels import LabelSet
from rbft.data.splits import make_splits
from rbft.errors import DataError

CLASSES = "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n"
NAMES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


def clips(groups):
    """List entries with the trap of the real lists: the folder HandstandPushups holds v_HandStandPushups files."""
    stems = (("ApplyEyeMakeup", "ApplyEyeMakeup"), ("HandstandPushups", "HandStandPushups"), ("YoYo", "YoYo"))
    return [f"{name}/v_{stem}_g{g:02d}_c{c:02d}.avi" for name, stem in stems for g in groups for c in (1, 2)]


TRAIN, TEST = clips(range(3, 6)), clips((1, 2))


def lists(**changes):
    train = "".join(f"{path} {NAMES.index(path.split('/')[0]) + 1}\r\n" for path in TRAIN)
    files = {"classInd.txt": CLASSES, "trainlist01.txt": train, "testlist01.txt": "\r\n".join(TEST) + "\r\n"}
    return {f"ucfTrainTestlist/{name}": content for name, content in {**files, **changes}.items()}


@pytest.mark.parametrize(
    "place",
    [
        lambda path: path,
        lambda path: f"UCF-101/{path}",
        lambda path: path.split("/")[1],
        lambda path: path.replace("HandStand", "Handstand").replace(".avi", ".mp4"),
    ],
)
def test_official_split_wherever_the_videos_lie(put, place):
    root = put(*map(place, TRAIN + TEST), **lists())
    records = UCF101().read(root)
    assert [record.split for record in records] == ["train"] * 18 + ["test"] * 12
    assert [record.path for record in records] == [place(path) for path in TRAIN + TEST]
    assert {record.label for record in records} == set(NAMES)
    assert UCF101().label_names(root) == NAMES
    first = records[6]
    assert (first.id, first.group) == ("v_HandStandPushups_g03_c01", "HandstandPushups_g03")
    splits = make_splits(records, LabelSet.from_records(records, NAMES), shots=2)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (6, 6, 12)


def test_other_splits_read_their_own_lists(put):
    root = put(*TRAIN, *TEST, **lists(**{"trainlist03.txt": f"{TEST[0]} 1", "testlist03.txt": TRAIN[0]}))
    assert [(record.path, record.split) for record in UCF101(split=3).read(root)] == [
        (TEST[0], "train"),
        (TRAIN[0], "test"),
    ]


def test_a_copy_of_the_videos_is_ambiguous_unless_the_stated_path_decides(put):
    root = put(*TRAIN, *TEST, f"old/{TEST[0].split('/')[1]}", **lists())
    assert UCF101().read(root)[18].path == TEST[0]
    put(f"UCF-101/{TEST[0]}")
    with pytest.raises(DataError, match="could both be the clip 'v_ApplyEyeMakeup_g01_c01'"):
        UCF101().read(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classInd.txt": "1 ApplyEyeMakeup\n3 YoYo\n"}, r"classInd.txt, row 2: expected '2 <class>', found '3 YoYo'"),
        ({"testlist01.txt": "Juggling/v_Juggling_g01_c01.avi"}, "row 1: the class 'Juggling' is not in classInd.txt"),
        ({"trainlist01.txt": f"\n{TRAIN[0]} 2\n"}, "trainlist01.txt, row 2: .* ApplyEyeMakeup the number 1, found '2'"),
        ({"testlist01.txt": "YoYo/clip7.avi"}, "row 1: .* does not end in a group"),
        ({"testlist01.txt": "../YoYo/v_YoYo_g01_c01.avi"}, "leads out"),
    ],
)
def test_errors_name_file_and_row(put, changes, message):
    with pytest.raises(DataError, match=message):
        UCF101().read(put(*TRAIN, *TEST, "YoYo/clip7.avi", **lists(**changes)))


def test_missing_files(put):
    root = put(*TRAIN[1:], *TEST, **lists())
    with pytest.raises(DataError, match=r"1 of 30 listed videos are not on disk \(ApplyEyeMakeup/v_ApplyEyeMakeup_g03"):
        UCF101().read(root)
    with pytest.raises(DataError, match=r"trainlist02.txt does not exist"):
        UCF101(split=2).read(root)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("off", "told"), [(0, None), (1, r"9,536 train videos \(official: 9,537\), 3,783 test videos")]
)
def test_lists_of_all_classes_are_compared_with_the_official_numbers(put, off, told):
    """At full size, in the layout of the real lists: 101 classes, groups 8 to 25 train and 1 to 7 test."""
    names = [f"Class{number:03d}" for number in range(101)]
    train, test = 9537 - off, 3783

    def listed(count, groups):
        return [
            f"{names[i % 101]}/v_{names[i % 101]}_g{groups[i // 101 % len(groups)]:02d}_c{i // 101:03d}.avi"
            for i in range(count)
        ]

    sides = {"train": listed(train, range(8, 26)), "test": listed(test, range(1, 8))}
    files = {"ucfTrainTestlist/classInd.txt": "".join(f"{i + 1} {name}\n" for i, name in enumerate(names))}
    files |= {f"ucfTrainTestlist/{side}list01.txt": "\n".join(paths) for side, paths in sides.items()}
    root = put(*sides["train"], *sides["test"], **files)
    if told is None:
        records = UCF101().read(root)
        assert len(records) == 9537 + 3783
        groups = [{record.group for record in records if record.split == side} for side in ("train", "test")]
        assert not groups[0] & groups[1]
    else:
        with pytest.raises(UserWarning, match=told):
            UCF101().read(root)
