"""Path and label lists."""

from __future__ import annotations

import pytest

from rbft.data.formats import MMAction
from rbft.errors import DataError

CLASSES = {"classes.txt": "walk\nrun\n"}


def test_read(put):
    root = put("v/a b.mp4", "v/c.mp4", **CLASSES, **{"train.txt": "a b.mp4 1\r\nc.mp4 0\r\n"})
    records = MMAction(videos="v").read(root)
    assert [(r.path, r.label, r.split) for r in records] == [
        ("v/a b.mp4", "run", "train"),
        ("v/c.mp4", "walk", "train"),
    ]
    assert MMAction().label_names(root) == ("walk", "run")


def test_an_empty_line_among_the_classes_is_refused(put):
    root = put("a.mp4", **{"train.txt": "a.mp4 1\n", "classes.txt": "walk\r\n\r\nrun\r\n"})
    with pytest.raises(DataError, match=r"classes.txt, row 2: is empty, and the number of a class is that of its line"):
        MMAction().read(root)
    (root / "classes.txt").write_text("\ufeffwalk\rrun \n \n\n", encoding="utf-8")
    assert MMAction().label_names(root) == ("walk", "run"), "lines behind the last name are no classes"


def test_three_lists_with_commas(put):
    lists = {f"{side}.csv": f"{side}.mp4,{n}\n" for side, n in (("train", 0), ("val", 1), ("test", 1))}
    root = put(*(f"{side}.mp4" for side in ("train", "val", "test")), **CLASSES, **lists)
    records = MMAction(train="train.csv", val="val.csv", test="test.csv", delimiter=",").read(root)
    assert [(r.split, r.label) for r in records] == [("train", "walk"), ("val", "run"), ("test", "run")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.mp4 0\na.mp4\n", r"train.txt, row 2: expected '<path> <class number>', found 'a.mp4'"),
        ("a.mp4 walk", "row 1: expected"),
        ("a.mp4 2", "row 1: the class 2 is not among the 2 of classes.txt"),
        ("a.mp4 0 1", "row 1: several classes"),
        ("../a.mp4 0", "row 1: the path '../a.mp4' leads out"),
        ("b.mp4 0", r"1 of 1 listed videos are not on disk \(b.mp4\)"),
    ],
)
def test_errors(put, lines, message):
    with pytest.raises(DataError, match=message):
        MMAction().read(put("a.mp4", **CLASSES, **{"train.txt": lines}))


def test_raw_frames_are_sequences_of_as_many_images_as_the_list_says(put):
    images = [f"frames/a b/img_{number:05d}.jpg" for number in range(1, 4)]
    root = put(*images, "frames/c/1.jpg", **{"train.txt": "a b 3 1\nc 1 0\n", "classes.txt": "run\nwalk\n"})
    first, second = MMAction(videos="frames", frame_rate=30).read(root)
    assert (first.id, first.path, first.label) == ("frames/a b", "frames/a b#fps=30", "walk")
    assert (second.path, second.label) == ("frames/c#fps=30", "run")
    for line, message in (
        ("a b 4 1", r"train\.txt, row 1: frames/a b holds 3 numbered images, and the list says 4"),
        ("c 0", r"row 1: expected '<folder> <number of images> <class number>'"),
        ("gone 3 0", r"1 of 1 listed videos are not on disk \(frames/gone#fps=30\)"),
    ):
        (root / "train.txt").write_text(line)
        with pytest.raises(DataError, match=message):
            MMAction(videos="frames", frame_rate=30).read(root)
