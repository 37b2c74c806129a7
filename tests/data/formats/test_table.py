"""Tables, and the rows all annotation files are read with."""

from __future__ import annotations

import datetime
import sys
import warnings

import pyarrow
import pyarrow.parquet
import pytest

from rbft.data.formats import Table
from rbft.errors import ConfigError, DataError


def read(put, content, file="labels.csv", videos=("a.mp4", "b.mp4", "c d.mp4"), **options):
    return Table(file=file, **options).read(put(*videos, **{file: content}))


def test_csv_with_everything(put):
    content = (
        "\ufeffpath, label ,split,group,note\r\n"
        '"a.mp4",walk,train,g1,"said ""hi"", then\r\nleft"\r\n'
        "\r\n"
        "./b.mp4,walk,Validation,,\r\n"
        '"c d.mp4",run,,g1,x\r\n'
    )
    a, b, c = read(put, content, text_columns=("note",))
    assert (a.id, a.path, a.label, a.split, a.group) == ("a.mp4", "a.mp4", "walk", "train", "g1")
    assert a.text == {"note": 'said "hi", then\nleft'}
    assert (b.path, b.split, b.group) == ("b.mp4", "val", None)
    assert (c.path, c.split, c.group) == ("c d.mp4", None, "g1")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("t.tsv", "clip\tclass\na.mp4\t1\nb.mp4\t2\n"),
        ("t.jsonl", '{"clip": "a.mp4", "class": 1}\n\n{"clip": "b.mp4", "class": "2", "group": null}'),
        ("sub/t.csv", "clip,class\na.mp4,1\nb.mp4,2"),
    ],
)
def test_other_files_and_columns(put, file, content):
    records = read(put, content, file, path_column="clip", label_column="class", group_column=None)
    assert [(record.path, record.label) for record in records] == [("a.mp4", "1"), ("b.mp4", "2")]


def test_a_key_that_some_lines_lack_is_empty_there(put):
    lines = (
        '{"path": "a.mp4", "note": "dark"}',
        '{"path": "b.mp4", "label": "run", "group": "g", "split": "test"}',
        '{"path": "c d.mp4", "label": "walk", "fps": 5}',
    )
    b, c = read(put, "\n".join(lines), "t.jsonl", text_columns=("note",), skip_unlabelled=True)
    assert (b.path, b.label, b.group, b.split, b.text) == ("b.mp4", "run", "g", "test", {"note": ""})
    assert (c.path, c.label, c.group, c.split) == ("c d.mp4", "walk", None, None)


@pytest.mark.parametrize(("written", "label"), [("1.0", "1.0"), ("1", "1"), ("-0.5", "-0.5"), ('"1.0"', "1.0")])
def test_a_number_is_the_class_that_a_csv_file_would_name(put, written, label):
    (stated,) = read(put, f'{{"path": "a.mp4", "label": {written}}}\n', "t.jsonl")
    (plain,) = read(put, f"path,label\na.mp4,{written}\n")
    assert stated.label == plain.label == label


@pytest.fixture
def parquet(tmp_path):
    """Write a table of these columns, and give the data root with its videos."""

    def write(**columns):
        for name in ("a.mp4", "b.mp4", "c d.mp4"):
            (tmp_path / name).touch()
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
        return tmp_path

    return write


def test_parquet_gives_what_csv_gives(parquet, put):
    columns = {
        "path": ["a.mp4", "b.mp4", "c d.mp4"],
        "label": pyarrow.array(["walk", "walk", "run"]).dictionary_encode(),
        "split": ["train", None, "test"],
        "start": [1.5, None, float("nan")],
        "end": [2.0, None, float("nan")],
        "take": [1, 2, 3],
        "score": [1.0, 0.5, 2.0],
    }
    found = Table("t.parquet", group_column="take", text_columns=("score",)).read(parquet(**columns))
    text = (
        "path,label,split,start,end,take,score\na.mp4,walk,train,1.5,2,1,1.0\nb.mp4,walk,,,,2,0.5\n"
        "c d.mp4,run,test,,,3,2.0\n"
    )
    assert found == read(put, text, group_column="take", text_columns=("score",))
    assert found[0].part == (1.5, 2.0) and found[1].part is None and found[2].text == {"score": "2.0"}


def test_parquet_errors(parquet, put, monkeypatch):
    root = parquet(path=["a.mp4", "b.mp4"], label=["x", None])
    with pytest.raises(DataError, match=r"t\.parquet, row 2: 'label' is empty"):
        Table("t.parquet").read(root)
    root = parquet(path=["a.mp4"], label=[datetime.date(2020, 1, 1)])
    with pytest.raises(DataError, match=r"row 1: 'label' must be text, found datetime\.date"):
        Table("t.parquet").read(root)
    root = parquet(path=["a.mp4"], klass=["x"])
    with pytest.raises(DataError, match=r"t\.parquet: there is no column 'label'; the columns are 'path', 'klass'"):
        Table("t.parquet").read(root)
    content = (root / "t.parquet").read_bytes()
    for spoilt in (b"", b"PAR1", content[:-9], b"path,label\n"):
        (root / "t.parquet").write_bytes(spoilt)
        with pytest.raises(DataError, match="not a Parquet file that can be read"):
            Table("t.parquet").read(root)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"need the package pyarrow: pip install 'rbft\[parquet\]'"):
        Table("t.parquet").read(root)


def test_paths_in_folders_of_splits_are_told_not_to_state_them(put):
    content = "path,label\ntrain/a.mp4,walk\nval/b.mp4,walk\nvideos/test/c.mp4,run\n"
    videos = ("train/a.mp4", "val/b.mp4", "videos/test/c.mp4")
    told = r"labels.csv, row 1: .*\(test \(1\), train \(1\), val \(1\)\) and are not taken for any.*column `split`"
    with pytest.warns(UserWarning, match=told):
        assert {record.split for record in read(put, content, videos=videos)} == {None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(put, content, split_column=None)
        read(put, content.replace("label", "label,split").replace("walk", "walk,train").replace("run", "run,"))
        read(
            put,
            content.replace("test/c", "train/c").replace("val/b", "train/b"),
            videos=("train/b.mp4", "videos/train/c.mp4"),
        )


def test_columns_may_be_written_in_any_case(put):
    (record,) = read(put, "Path,LABEL,Split,Group\na.mp4,x,train,g\n")
    assert (record.path, record.label, record.split, record.group) == ("a.mp4", "x", "train", "g")
    (record,) = read(put, "Path,path,label\nb.mp4,a.mp4,x\n")
    assert record.path == "a.mp4"


def test_auto_columns_can_be_named_or_ignored(put):
    content = "path,label,split,group,fold,camera\na.mp4,x,train,g,test,k\n"
    assert [(r.split, r.group) for r in read(put, content)] == [("train", "g")]
    assert [(r.split, r.group) for r in read(put, content, split_column=None, group_column=None)] == [(None, None)]
    named = read(put, content, split_column="fold", group_column="camera")
    assert [(r.split, r.group) for r in named] == [("test", "k")]


ROWS = [
    ("path,label\na.mp4,x\nb.mp4,x,y\n", r"labels.csv, row 3: 3 cells, but the header has 2"),
    ("path,label\na.mp4\n", "row 2: 1 cells"),
    ('path,label\n"a.mp4","x\ny"\nb.mp4,\n', "row 4: 'label' is empty"),
    ("path,label\n,x\n", "row 2: 'path' is empty"),
    ("path,label\n../a.mp4,x\n", "row 2: the path '../a.mp4' leads out"),
    ("path,label\na.mp4,x\n\nb.mp4,x\n./a.mp4,y\n", "row 5: a.mp4 is already listed in .*labels.csv, row 2"),
    ("path,label,split\na.mp4,x,holdout\n", "row 2: the split 'holdout' is unknown"),
    (
        "path,lable\na.mp4,x\n",
        "labels.csv, row 1: there is no column 'label'; the columns are 'path', 'lable'. Did you mean 'lable'",
    ),
    ("path,class\na.mp4,x\n", r"no column 'label'; .* Name another with --data\.format\.label_column COLUMN\."),
    ("path;label\na.mp4;x\n", "separated by another character"),
    ("path,label,path\na.mp4,x,y\n", "row 1: the column 'path' stands twice"),
    ('path,label\na.mp4,x\nb.mp4,"x\n', "row 3: unexpected end of data; check the double quotes"),
    ("path,label\n", "lists no videos"),
    ("", "lists no videos"),
    ("path,label\na.mp4,\udcff\n", "row 2: not UTF-8"),
    ("path,label\nq.mp4,x\na.mp4,x\n", r"1 of 2 listed videos are not on disk \(q.mp4\)"),
    ("path,label\n" + "".join(f"q{i}.mp4,x\n" for i in range(7)), r"7 of 7 .*\(q0.mp4, .*, q4.mp4, \.\.\.\)"),
]


@pytest.mark.parametrize(("content", "message"), ROWS)
def test_errors_name_file_and_row(put, content, message):
    with pytest.raises(DataError, match=message):
        read(put, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"path": "a.mp4", "label": "x"}\n{"path": "b.mp4"\n', "t.jsonl, row 2: not valid JSON"),
        ('{"path": "a.mp4", "label": "x"}\n{"path": "b.mp4"}\n', "row 2: 'label' is empty; fill it in or"),
        ('{"path": "a.mp4"}\n', "row 1: there is no column 'label'"),
        ("[1]\n", "row 1: expected a JSON object, found list"),
        ('{"path": "a.mp4", "label": ["x"]}\n', r"row 1: 'label' must be text, found \['x'\]"),
        ('{"path": "a.mp4", "label": null}\n', "row 1: 'label' is empty"),
        ('{"path": "a.mp4", "label": NaN}\n', "row 1: 'label' is empty"),
    ],
)
def test_jsonl_errors(put, content, message):
    with pytest.raises(DataError, match=message):
        read(put, content, "t.jsonl")


def test_file_errors(put):
    with pytest.raises(DataError, match=r"labels\.csv does not exist"):
        Table().read(put("a.mp4"))
    with pytest.raises(DataError, match=r"unknown kind of table '\.xlsx'"):
        read(put, "", "t.xlsx")
    with pytest.raises(DataError, match="leads out"):
        Table(file="../labels.csv").read(put("a.mp4"))
    with pytest.raises(DataError, match="row 1: there is no column 'fold'"):
        read(put, "path,label\na.mp4,x\n", split_column="fold")
