"""MultiHateClip's lists."""

from __future__ import annotations

import pytest

from rbft.data.formats import MultiHateClip
from rbft.errors import DataError

# the published headers have these slips in the columns that are not used here
HEADER = "Video_ID\tMajority_Voting\tLabel\tTarget_Victimg\tComponentg\tDuration\n"
ROWS = {
    "train": "tOsD1F--EEo\tNormal\t['Normal', 'Normal']\t[]\t[]\t[]\n"
    "-Hhj\tHateful\t['Hateful']\t['Man']\t[]\t[(0, 2)]\n",
    "valid": "a1\tOffensive\t['Offensive']\t[]\t[]\t[]\n",
    "test": "b2\tNormal\t['Normal']\t[]\t[]\t[]\n",
}
FILES = {f"English_data/annotation/{name}.tsv": HEADER + rows for name, rows in ROWS.items()}
VIDEOS = ["videos/tOsD1F--EEo.mp4", "videos/-Hhj/A title.mp4", "videos/a1/video.mp4", "videos/b2.mp4"]


def test_read(put):
    root = put(*VIDEOS, **FILES)
    records = MultiHateClip(videos="videos").read(root)
    assert [(r.path, r.label, r.split) for r in records] == [
        (VIDEOS[0], "Normal", "train"),
        (VIDEOS[1], "Hateful", "train"),
        (VIDEOS[2], "Offensive", "val"),
        (VIDEOS[3], "Normal", "test"),
    ]
    two = MultiHateClip(classes="two", videos="videos")
    assert [r.label for r in two.read(root)] == ["Normal", "Hateful or Offensive", "Hateful or Offensive", "Normal"]
    assert two.label_names(root) == ("Normal", "Hateful or Offensive")


def test_deleted_videos(put):
    root = put(*VIDEOS[1:], **FILES)
    with pytest.raises(DataError, match=r"1 of 4 .*\(tOsD1F--EEo\)"):
        MultiHateClip(videos="videos").read(root)
    with pytest.warns(UserWarning, match="by class: Normal 1"):
        assert len(MultiHateClip(videos="videos", missing="drop").read(root)) == 3


def test_errors(put):
    root = put(*VIDEOS, "videos/a1/second.mp4", **FILES)
    with pytest.raises(DataError, match="a1 holds 2 videos"):
        MultiHateClip(videos="videos").read(root)
    with pytest.raises(DataError, match=r"Chinese_data/annotation/train\.tsv does not exist"):
        MultiHateClip(language="Chinese", videos="videos").read(root)
    put(**{"English_data/annotation/train.tsv": HEADER + "x\tCounter Narrative\t[]\t[]\t[]\t[]\n"})
    with pytest.raises(DataError, match=r"train\.tsv, row 2: the vote 'Counter Narrative' is none of"):
        MultiHateClip(videos="videos").read(root)
