"""A folder for each class."""

from __future__ import annotations

import contextlib

import pytest

from rbft.data.formats import ClassFolders
from rbft.data.formats.on_disk import VIDEO_SUFFIXES
from rbft.errors import DataError


def read(root):
    return [(record.path, record.label, record.split) for record in ClassFolders().read(root)]


def test_classes(put):
    root = put("b/2.mp4", "b/1.MP4", "a/deep/er/x.webm", "a/.hidden.mp4", "a/notes.txt", ".git/c.mp4", "README.md")
    put("__MACOSX/b/._1.mp4")
    assert read(root) == [("a/deep/er/x.webm", "a", None), ("b/1.MP4", "b", None), ("b/2.mp4", "b", None)]
    assert ClassFolders().read(root)[0].id == "a/deep/er/x.webm"


def test_every_extension(put):
    assert len(read(put(*(f"a/x{suffix}" for suffix in VIDEO_SUFFIXES)))) == len(VIDEO_SUFFIXES) == 30


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val"])
def test_splits(put, name):
    root = put("train/a/1.mp4", f"{name}/a/2.mp4", "test/b/3.mp4")
    assert sorted(read(root)) == sorted(
        [("train/a/1.mp4", "a", "train"), (f"{name}/a/2.mp4", "a", "val"), ("test/b/3.mp4", "b", "test")]
    )


def test_a_class_may_be_called_train(put):
    assert read(put("train/1.mp4", "bus/2.mp4")) == [("bus/2.mp4", "bus", None), ("train/1.mp4", "train", None)]


def test_splits_inside_of_classes_are_told_not_to_be_taken(put):
    root = put("a/train/1.mp4", "a/Test/2.mp4", "b/train/x/3.mp4", "b/Test/4.mp4")
    with pytest.warns(
        UserWarning, match=r"called as splits are \(Test \(2\), train \(2\)\) .* not taken for any.*train/CLASS"
    ):
        assert {split for _, _, split in read(root)} == {None}


@pytest.mark.filterwarnings("error")
def test_one_folder_that_is_called_as_a_split_states_none(put):
    assert len(read(put("a/train/1.mp4", "a/training/2.mp4", "b/3.mp4", "train/4.mp4"))) == 4


def test_linked_folders_are_followed_once(put):
    root = put("data/a/1.mp4", "data/b/2.mp4")
    (root / "data/a/again").symlink_to(root / "data/a", target_is_directory=True)
    (root / "data/c").symlink_to(root / "data/b", target_is_directory=True)
    assert [path for path, _, _ in read(root / "data")] == ["a/1.mp4", "b/2.mp4", "c/2.mp4"]


def test_what_is_no_class_can_be_skipped(put):
    root = put("train/a/1.mp4", "test/a/2.mp4", "more/3.mp4")
    found = ClassFolders(skip=("more",)).read(root)
    assert [(r.path, r.label, r.split) for r in found] == [
        ("test/a/2.mp4", "a", "test"),
        ("train/a/1.mp4", "a", "train"),
    ]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["a/1.mp4", "b/notes.txt", "b/x.jpg"],
            r"class folder .*/b holds no video \(found notes.txt, x.jpg; videos end in .*\.m2ts, .*\.wmv",
        ),
        (["a/1.mp4", "b/x.csv", "c/y.csv"], r"fill it or remove it, or .*--data\.format\.skip '\[\"b\", \"c\"\]'$"),
        (["train/a/1.mp4", "train/b/x.csv"], r"train/b holds no video .*fill it or remove it\.$"),
        (["a/1.mp4", "b/.hidden.mp4"], r"/b holds no video \(found nothing; "),
        (["a/1.mp4", "loose.mp4"], "loose.mp4 lies in no class folder"),
        (["train/1.mp4", "test/a/2.mp4"], "train/1.mp4 lies in no class folder"),
        (
            ["train/a/1.mp4", "extra/2.mp4"],
            r"mixes split folders \(train\) and others \(extra\).*--data\.format\.skip '\[\"extra\"\]'",
        ),
        (["train/a/1.mp4", "eval/a/2.mp4"], r"\(eval\); call splits train, val and test \(eval\), move the classes"),
        (["readme.txt"], r"holds no class folders \(found readme.txt\)"),
        (["a/b\\c.mp4"], "holds a backslash"),
    ],
)
def test_errors(put, paths, message):
    root = put(*paths)
    with pytest.raises(DataError, match=message):
        read(root)


@pytest.mark.parametrize(
    "path", ["x/x.yaml", "clips/rbft/seed0/experiment.yaml", "x/y/seed1/check.json", "suggestions.html", "rbft.json"]
)
@pytest.mark.parametrize("side", ["", "train/"])
def test_what_rbft_left_beside_the_classes_is_no_class(put, path, side):
    root = put(f"{side}a/1.mp4", f"{side}b/2.mp4", **{f"left/{path}": "# RB-FT on 2 labelled clips"})
    assert [label for _, label, _ in read(root)] == ["a", "b"]
    put("left/x.mp4")
    with pytest.raises(DataError, match="mixes") if side else contextlib.nullcontext():
        assert [label for _, label, _ in read(root)] == ["a", "b", "left"]


def test_another_file_makes_no_folder_rbfts_own(put):
    with pytest.raises(DataError, match=r"class folder .*/left holds no video"):
        read(put("a/1.mp4", "b/2.mp4", **{"left/x/x.yaml": "# mine\n", "left/y/z.yaml": "# RB-FT on"}))


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["fall/a\\b.mp4", "fall/a\nb.mp4", "a:b/c.mp4"])
def test_a_name_that_cannot_be_listed_is_to_be_changed(put, name):
    root = put("fall/a.mp4", "walk/b.mp4", name)
    with pytest.raises(DataError, match="Rename the file, or the folder that is called so"):
        ClassFolders().read(root)
