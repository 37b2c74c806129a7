"""Kinetics' csv files."""

from __future__ import annotations

import pytest

from rbft.data.formats import Kinetics
from rbft.errors import DataError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
FILES = {
    "train.csv": HEADER + '"air drumming",-3B32lodo2M,59,69,train,0\nabseiling,_dbcJuKJQNs,40,50,train,0\n',
    "val.csv": HEADER + "abseiling,0a1b2c3d4e5,7,17,val,0\n",
}
VIDEOS = [
    "train/air drumming/-3B32lodo2M_000059_000069.mp4",
    "train/abseiling/_dbcJuKJQNs.mkv",
    "val/abseiling/0a1b2c3d4e5_000007_000017.mp4",
]


def test_read(put):
    records = Kinetics().read(put(*VIDEOS, **FILES))
    assert [(r.path, r.label, r.split, r.group) for r in records] == [
        (VIDEOS[0], "air drumming", "train", "-3B32lodo2M"),
        (VIDEOS[1], "abseiling", "train", "_dbcJuKJQNs"),
        (VIDEOS[2], "abseiling", "test", "0a1b2c3d4e5"),
    ]
    assert records[1].id == "_dbcJuKJQNs_000040_000050"


def test_vanished_videos(put):
    root = put(*VIDEOS[1:], **FILES)
    with pytest.raises(DataError, match=r"1 of 3 .*\(-3B32lodo2M_000059_000069\)"):
        Kinetics().read(root)
    with pytest.warns(UserWarning, match="by class: air drumming 1"):
        assert len(Kinetics(missing="drop").read(root)) == 2


def test_bad_time(put):
    root = put(*VIDEOS, **{**FILES, "val.csv": HEADER + "abseiling,0a1b2c3d4e5,soon,17,val,0\n"})
    with pytest.raises(DataError, match=r"val\.csv, row 2: 'time_start' must be a number of seconds, found 'soon'"):
        Kinetics().read(root)
