"""HMDB51's official lists."""

from __future__ import annotations

import pytest

from rbft.data.formats import HMDB51
from rbft.errors import DataError

HAIR = "April_09_brush_hair_u_nm_np1_ba_goo_{}.avi"
CLIMB = "Piano_stairs__-_(sort_of)!_climb_stairs_f_cm_np2_fr_med_{}.avi"
LISTS = {
    "testTrainMulti_7030_splits/brush_hair_test_split1.txt": f"{HAIR.format(0)} 1 \n{HAIR.format(1)} 1 \n",
    "testTrainMulti_7030_splits/climb_stairs_test_split1.txt": f"{CLIMB.format(0)} 2 \n{CLIMB.format(1)} 0 \n",
    "testTrainMulti_7030_splits/climb_stairs_test_split2.txt": f"{CLIMB.format(0)} 1 \n",
}


def test_split(put):
    root = put(*(f"brush_hair/{HAIR.format(i)}" for i in (0, 1)), f"climb_stairs/{CLIMB.format(0)}", **LISTS)
    records = HMDB51().read(root)
    assert [(record.label, record.split) for record in records] == [
        ("brush_hair", "train"),
        ("brush_hair", "train"),
        ("climb_stairs", "test"),
    ]
    assert [record.group for record in records] == [
        "brush_hair/April_09_brush_hair",
        "brush_hair/April_09_brush_hair",
        "climb_stairs/Piano_stairs__-_(sort_of)!_climb_stairs",
    ]
    assert [record.split for record in HMDB51(split=2).read(root)] == ["train"]


def test_errors(put):
    root = put(**LISTS)
    with pytest.raises(DataError, match="3 of 3 listed videos"):
        HMDB51().read(root)
    with pytest.raises(DataError, match=r"no file '\*_test_split3.txt'"):
        HMDB51(split=3).read(root)
    put(**{"testTrainMulti_7030_splits/brush_hair_test_split1.txt": "x.avi 1\ny.avi 3\n"})
    with pytest.raises(DataError, match=r"brush_hair_test_split1.txt, row 2: expected '<file> 0\|1\|2'"):
        HMDB51().read(root)
