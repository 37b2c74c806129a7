"""Hugging Face's VideoFolder."""

from __future__ import annotations

import pytest

from rbft.data.formats import VideoFolder
from rbft.errors import DataError


def test_metadata_in_each_split_folder(put):
    root = put(
        "train/1.mp4",
        "train/sub/2.mp4",
        "test/3.mp4",
        **{
            "train/metadata.csv": "file_name,label,split,caption\n1.mp4,a,test,hi\nsub/2.mp4,b,test,\n",
            "test/metadata.jsonl": '{"file_name": "3.mp4", "label": "a", "caption": "x", "group": "g"}\n',
        },
    )
    records = VideoFolder(text_columns=("caption",)).read(root)
    assert sorted((r.id, r.label, r.split, r.group) for r in records) == [
        ("test/3.mp4", "a", "test", "g"),
        ("train/1.mp4", "a", "train", None),  # the folder decides, as in Hugging Face's loader
        ("train/sub/2.mp4", "b", "train", None),
    ]
    assert {r.id: r.text["caption"] for r in records} == {"test/3.mp4": "x", "train/1.mp4": "hi", "train/sub/2.mp4": ""}


def test_metadata_in_the_root(put):
    root = put("train/1.mp4", "x/2.mp4", **{"metadata.csv": "file_name,class,split\ntrain/1.mp4,a,test\nx/2.mp4,b,\n"})
    records = VideoFolder(label_column="class").read(root)
    assert [(r.path, r.label, r.split) for r in records] == [("train/1.mp4", "a", "test"), ("x/2.mp4", "b", None)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.mp4": ""}, "holds no metadata.csv or metadata.jsonl, nor do its split folders; .* ClassFolders"),
        ({"metadata.csv": "", "metadata.jsonl": ""}, "holds both"),
        ({"train/metadata.csv": "file_name,label\n../test/1.mp4,a\n"}, "row 2: the path '../test/1.mp4' leads out"),
        ({"metadata.csv": "file_name,label\n1.mp4,a\n"}, r"not on disk \(1.mp4\)"),
        ({"metadata.csv": "file,label\n1.mp4,a\n"}, "no column 'file_name'.* mean 'file'"),
    ],
)
def test_errors(put, files, message):
    with pytest.raises(DataError, match=message):
        VideoFolder().read(put(**files))


@pytest.mark.parametrize("about", ["key,value\nlicence,CC\n", "file_name,camera\ntrain/1.mp4,a\ntest/1.mp4,b\n"])
def test_metadata_of_the_root_about_other_things_leaves_those_of_the_splits(put, about):
    files = {f"{side}/metadata.csv": "file_name,label\n1.mp4,x\n" for side in ("train", "test")}
    root = put("train/1.mp4", "test/1.mp4", **files, **{"metadata.csv": about})
    assert [(r.path, r.split) for r in VideoFolder().read(root)] == [("test/1.mp4", "test"), ("train/1.mp4", "train")]


def test_rows_without_a_label_can_be_left_out(put):
    text = "file_name,label\n1.mp4,a\n2.mp4, \n"
    root = put(
        "train/1.mp4", "train/2.mp4", "test/1.mp4", **{"train/metadata.csv": text, "test/metadata.csv": text[:-9]}
    )
    with pytest.raises(DataError, match=r"row 3: 'label' is empty; fill it in"):
        VideoFolder().read(root)
    assert [r.path for r in VideoFolder(skip_unlabelled=True).read(root)] == ["test/1.mp4", "train/1.mp4"]
    for side in ("train", "test"):
        (root / side / "metadata.csv").write_text("file_name,label\n1.mp4,\n")
    with pytest.raises(DataError, match=r"no row has a label yet; `rbft label`"):
        VideoFolder(skip_unlabelled=True).read(root)
