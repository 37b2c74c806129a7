"""Listed paths that are on the disk but for letter case, the form of their accents, a folder or a suffix."""

from __future__ import annotations

import pytest

from rbft.data.formats import Table
from rbft.data.formats.on_disk import is_video
from rbft.data.formats.spelling import hint_of_spelling
from rbft.errors import DataError
from rbft.labelling.clips import find_clips

ONE, TWO = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("listed", "hint"),
    [
        ("Fall/A.MP4", "Fall/A.MP4 is called fall/a.mp4 there: write its letters in the same case"),
        (f"{ONE}/b.mp4", "is there with its accents in another form of Unicode .* rename the file, or copy its name"),
        ("seq/A#fps=5", "seq/A is called seq/a there"),
        ("fall/a", "fall/a is there as fall/a.mp4: paths are relative to /.*, and end in the file's suffix"),
        ("a.mp4", "a.mp4 is there as fall/a.mp4: paths"),
        ("clips/fall/a.mp4", "clips/fall/a.mp4 is there as fall/a.mp4: paths"),
    ],
)
def test_the_spelling_on_the_disk_is_told(put, listed, hint):
    root = put("fall/a.mp4", f"{TWO}/b.mp4", "seq/a/1.jpg", **{"labels.csv": f"path,label\n{listed},x\n"})
    with pytest.raises(DataError, match=f"1 of 1 listed videos are not on disk .*{hint}"):
        Table().read(root)
    with pytest.raises(DataError, match=f"none of its 1 clips is on the disk .*{hint}"):
        find_clips(root / "labels.csv")


def test_nothing_is_told_where_it_is_not_clear(put):
    root = put("a.mp4", "A.mp4", "b.mp4", "b.txt", "x/c.mp4", "y/c.mp4", "x/ad.mp4")
    assert hint_of_spelling(root, ["a.MP4", "e.mp4", "b.mp4/c.mp4", "no/b.mp4"], is_video) == ""
    assert [hint_of_spelling(root, [path], is_video) for path in ("c.mp4", "c", "d.mp4", "d", "b.txt.mp4")] == [""] * 5
    assert "B.mp4 is called b.mp4" in hint_of_spelling(root, ["e.mp4", "B.mp4"], is_video)
    assert "b is there as b.mp4" in hint_of_spelling(root, ["b"], is_video)
