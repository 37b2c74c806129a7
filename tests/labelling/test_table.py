"""The table of labels: what stood in it is kept, each change is whole, and other programs' changes are not undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbft.data.formats import Table
from rbft.errors import DataError, StorageError
from rbft.labelling import table as module
from rbft.labelling.table import Labelled, LabelTable
from rbft.starter.layout import recognise


def test_a_new_table_begins_with_what_is_known_and_is_read_by_the_format(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    table = LabelTable(tmp_path / "labels.csv", [Labelled("a.mp4", None, "fall"), Labelled("b.mp4", None, "=fall")])
    assert not table.path.exists(), "looking writes nothing"
    table.set("c.mp4", None, "no fall, so far")
    assert table.path.read_text() == 'path,label\na.mp4,fall\nb.mp4,\'=fall\nc.mp4,"no fall, so far"\n'
    records = Table().read(tmp_path)
    assert [(record.path, record.label) for record in records] == [
        ("a.mp4", "fall"),
        ("b.mp4", "=fall"),
        ("c.mp4", "no fall, so far"),
    ]
    assert [path.name for path in tmp_path.iterdir() if ".old" in path.name] == []


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_everything_else_in_a_table_is_kept(tmp_path: Path, suffix: str, mark: str) -> None:
    path = tmp_path / f"mine{suffix}"
    rows = ["Note,File_Name,Category,start,end", " two  words ,x/a.mp4,fall,,", "n,b.mp4,,1,2.5", "n,gone.mp4,sit,,"]
    path.write_text("\ufeff" + "\r\n".join(rows).replace(",", mark) + "\r\n", encoding="utf-8")
    before = path.read_bytes()
    table = LabelTable(path)
    table.set("b.mp4", (1.0, 2.5), "sit")
    table.set("x/a.mp4", None, "")
    table.set("new.mp4", None, "fall")
    written = ["Note,File_Name,Category,start,end", " two  words ,x/a.mp4,,,", "n,b.mp4,sit,1,2.5"]
    written += ["n,gone.mp4,sit,,", ",new.mp4,fall,,"]
    assert path.read_text() == "\ufeff" + "\n".join(written).replace(",", mark) + "\n"
    (old,) = tmp_path.glob("*.old-*")
    assert old.read_bytes() == before, "one copy a session, as it was before"
    LabelTable(path).set("new.mp4", None, "sit")
    assert (tmp_path / f"{path.name}.old-2").is_file()


def test_a_row_that_holds_nothing_but_its_label_goes_with_it(tmp_path: Path) -> None:
    table = LabelTable(tmp_path / "labels.csv")
    table.set("a.mp4", None, "fall")
    table.set("b.mp4", None, "fall")
    table.set("a.mp4", None, "")
    table.set("never.mp4", None, "")
    assert table.path.read_text() == "path,label\nb.mp4,fall\n"


def test_lines_of_json_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [{"path": "a.mp4", "label": "fall", "tags": [1, {"x": None}], "weight": 0.5}, {"path": "b.mp4"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = LabelTable(path)
    table.set("b.mp4", None, "sit")
    table.set("c.mp4", None, "sit")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [rows[0], {"path": "b.mp4", "label": "sit"}, {"path": "c.mp4", "label": "sit"}]


def test_what_another_program_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    table, other = LabelTable(tmp_path / "labels.csv"), LabelTable(tmp_path / "labels.csv")
    table.set("a.mp4", None, "fall")
    other.set("b.mp4", None, "sit")
    table.set("c.mp4", None, "fall")
    assert [(row.path, row.label) for row in other.read()] == [("a.mp4", "fall"), ("b.mp4", "sit"), ("c.mp4", "fall")]


def test_a_label_column_is_added_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,group\na.mp4,kitchen\n")
    LabelTable(path).set("a.mp4", None, "fall")
    assert path.read_text() == "path,group,label\na.mp4,kitchen,fall\n"
    path.write_text("path,label\n")
    assert LabelTable(path).read() == [], "a header alone is a table, too"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", ",path,label\n0,a.mp4,x\n", "a column has no name"),
        ("t.csv", "", "there is no header"),
        ("t.csv", "clip id,label\na.mp4,x\n", r"no column of it is known to hold paths .*'clip id'.* Call it path"),
        ("t.csv", "path;label\na.mp4;x\n", r"hold paths \(columns: 'path;label'\)\. The cells seem to be separated by"),
        ("t.csv", "path,label\n../a.mp4,x\n", r"row 2: the path '../a.mp4' leads out"),
        ("t.csv", "path,label\na.mp4,x\na.mp4,y\n", r"row 3: the same clip stands in a row above"),
        ("t.xlsx", "", r"\.csv, \.tsv or \.jsonl"),
    ],
)
def test_a_table_that_would_be_damaged_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        LabelTable(path)
    assert path.read_text() == content


def test_where_the_disk_is_full_the_table_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LabelTable(tmp_path / "labels.csv")
    table.set("a.mp4", None, "fall")
    before = table.path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left on the disk")

    monkeypatch.setattr(module, "write_csv", full)
    with pytest.raises(StorageError):
        table.set("b.mp4", None, "fall")
    monkeypatch.undo()
    assert table.path.read_bytes() == before
    table.set("b.mp4", None, "fall")
    assert len(table.read()) == 2


def test_a_row_that_was_there_before_stays_when_its_label_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "todo.csv"
    path.write_text("path,label\na.mp4,\nb.mp4,sit\n")
    table = LabelTable(path)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        table.set(name, None, "fall")
        table.set(name, None, "")
    assert path.read_text() == "path,label\na.mp4,\nb.mp4,\n", "but the one of this session goes"
    begun = LabelTable(tmp_path / "new.csv", [Labelled("a.mp4", None, "fall"), Labelled("b.mp4", None, "fall")])
    begun.set("b.mp4", None, "")
    assert begun.path.read_text() == "path,label\na.mp4,fall\nb.mp4,\n"


def test_the_mark_of_a_spreadsheet_and_the_cells_of_others_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "\ufeffpath,label,offset,note\ng\u00e4hnen.mp4,fall,-5,'quoted'\nb.mp4,'=sit,+1,'-x\n", encoding="utf-8"
    )
    table = LabelTable(path)
    assert [row.label for row in table.read()] == ["fall", "=sit"]
    table.set("g\u00e4hnen.mp4", None, "@rest")
    assert path.read_bytes().decode() == (
        "\ufeffpath,label,offset,note\ng\u00e4hnen.mp4,'@rest,-5,'quoted'\nb.mp4,'=sit,+1,'-x\n"
    )
    plain = LabelTable(tmp_path / "plain.csv")
    plain.set("a.mp4", None, "fall")
    assert not plain.path.read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_table_stays_who_may_read_it_where_it_is_and_how_its_lines_end(tmp_path: Path) -> None:
    held, path = tmp_path / "of_mine.csv", tmp_path / "labels.csv"
    held.write_bytes(b"path,label\r\na.mp4,fall\r\nb.mp4,\r\n")
    held.chmod(0o600)
    path.symlink_to(held.name)
    LabelTable(path).set("b.mp4", None, "sit")
    assert path.is_symlink() and held.read_bytes() == b"path,label\r\na.mp4,fall\r\nb.mp4,sit\r\n"
    assert {name.name: name.stat().st_mode & 0o777 for name in tmp_path.glob("[!.]*.csv*")} == {
        "labels.csv": 0o600,
        "of_mine.csv": 0o600,
        "labels.csv.old-1": 0o600,
    }


def test_nothing_outside_of_the_folder_is_written_through_a_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "clips", tmp_path / "elsewhere.csv"
    folder.mkdir()
    outside.write_text("path,label\na.mp4,fall\n")
    for target in (outside, tmp_path / "not_there.csv"):
        path = folder / "labels.csv"
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        LabelTable(path).set("a.mp4", None, "sit")
        assert not path.is_symlink() and path.read_text() == "path,label\na.mp4,sit\n"
    assert outside.read_text() == "path,label\na.mp4,fall\n" and not (tmp_path / "not_there.csv").exists()


def test_of_two_columns_that_read_the_same_the_label_goes_into_the_one_that_fit_reads(tmp_path: Path) -> None:
    labels = {"a.mp4": "fall", "b.mp4": "fall", "c.mp4": "fall", "d.mp4": "sit", "e.mp4": "sit"}
    for name in labels:
        (tmp_path / name).touch()
    path = tmp_path / "labels.csv"
    path.write_text("path,Label,label\n" + "".join(f"{name},x,{label}\n" for name, label in labels.items()))
    LabelTable(path).set("b.mp4", None, "sit")
    assert {record.path: record.label for record in recognise(path).records}["b.mp4"] == "sit"
    assert path.read_text().splitlines()[2] == "b.mp4,x,sit"
