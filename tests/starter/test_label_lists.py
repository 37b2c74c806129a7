"""Lists of labels that cannot be read as they are: refused, and never passed over for the names of folders."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from tests.starter.test_layout import CLIPS, fill

from rbft.errors import DataError
from rbft.starter.layout import recognise

LABELS = {clip: "sit" if clip[-5] == "0" else "stand" for clip in CLIPS}


def lines(mark: str, header: str = "", name: str = "{}", label: str = "{}") -> str:
    rows = [mark.join([name.format(clip), label.format(said)]) for clip, said in LABELS.items()]
    return "\n".join([*filter(None, [header]), *rows, ""])


LISTS = [
    ("labels.csv", lines(";", "path;label"), "its cells are separated by semicolons; .csv means commas"),
    ("list.csv", lines("\t", "path\tlabel"), "separated by tabs"),
    ("labels.tsv", lines(",", "path,label"), "separated by commas; .csv means commas, .tsv means tabs"),
    ("labels.csv", lines(";", "path;label;at", label="{};0,5"), "separated by semicolons"),
    ("labels.csv", "sep=,\n" + lines(",", "path,label"), "delete 'sep='"),
    ("labels.csv", lines(","), "first line names no columns; write path,label"),
    (
        "clips.csv",
        lines(",", "Datei,Art"),
        r"'Datei', 'Art'\).*say --data.format.path_column Datei --data.format.label",
    ),
    ("clips.csv", lines(",", "path,my labels"), r"hold classes .*--data.format.label_column 'my labels'"),
    ("clips.jsonl", "\n".join(json.dumps({"id": c, "labels": v}) for c, v in LABELS.items()), "path_column id"),
    ("labels.csv", "clip number,what\n1,sit\n2,stand\n", "no column of it is known to hold paths and classes"),
    (
        "labels.json",
        json.dumps([{"path": c, "label": v} for c, v in LABELS.items()]),
        r"\.json of this kind cannot be read",
    ),
    ("a.json", json.dumps(LABELS), r"\.json of this kind cannot be read; save it as a \.csv"),
    ("a.json", json.dumps({Path(c).stem + ".avi": {"label": v} for c, v in LABELS.items()}), r"\.json of this kind"),
    ("labels.txt", lines(",", "path,label"), r"\.txt of this kind cannot be read; save it as a \.csv with commas"),
    ("train.txt", lines(" ", name="/data/{}"), r"\.txt of this kind"),
    ("Labels.xlsx", "PK", r"\.xlsx cannot be read; save it as CSV in UTF-8"),
    (
        "split.csv",
        lines(",", "path,split"),
        r"hold classes \(columns: 'path', 'split'\); add one that is called label\. To",
    ),
    ("groups.csv", lines(",", "path,Group"), "; add one that is called label. To go"),
    ("a.csv", lines(",", "path,group,is", label="g,{}"), "say --data.format.label_column is"),
    ("metadata.csv", lines(",", "file_name,view"), r"hold classes .*--data.format.label_column view"),
    ("metadata.csv", lines(",", "file_name,label") + "fall/0.mp4,sit,dark\n", "row 8: 3 cells, but the header has 2"),
    ("list.csv", lines(",", "path,label").encode("utf-16"), "row 1: not UTF-8; save the file as UTF-8"),
    ("labels.csv", "path,label\n", "lists no videos"),
    ("list.csv", "my clips\n" + "".join(f"{v},{c}\n" for c, v in LABELS.items()), "first line names no columns"),
    ("odd.csv", lines(",", "Datei", label="{},x"), "say --data.format.path_column Datei\\. To go"),
    (
        "train/metadata.csv",
        "file_name;label\n0.mp4;sit\n1.mp4;stand\n2.mp4;sit\n",
        "train/metadata.csv looks .*semicolons",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), LISTS)
def test_a_list_of_labels_is_not_passed_over_for_class_folders(
    name: str, content: str | bytes, message: str, tmp_path: Path
):
    clips = CLIPS if "/" not in name else [f"{side}/{clip}" for side in ("train", "test") for clip in CLIPS]
    fill(tmp_path, *clips)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        recognise(tmp_path)
    assert recognise(tmp_path, format="ClassFolders").classes.keys() == {"fall", "other"}


@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        ([{"video": c, "conversations": [{"from": "gpt", "value": v}]} for c, v in LABELS.items()], "train.json"),
        (
            [{"videos": [c], "messages": [{"role": "assistant", "content": v}]} for c, v in LABELS.items()],
            "train.jsonl",
        ),
    ],
)
def test_a_list_that_can_be_read_by_its_name_is_to_be_named(content: list, mentioned: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    text = json.dumps(content) if mentioned.endswith("json") else "\n".join(map(json.dumps, content))
    (tmp_path / mentioned).write_text(text)
    with pytest.raises(DataError, match=rf"must be named itself \(.*{mentioned} in place of its folder\)"):
        recognise(tmp_path)
    assert recognise(tmp_path / mentioned).classes == {"sit": 2, "stand": 4}


def test_numbers_of_classes_are_to_be_named(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / "all.txt").write_text("\n".join(f"{clip} {int(v == 'sit')}" for clip, v in LABELS.items()))
    (tmp_path / "classes.txt").write_text("stand\nsit\n")
    with pytest.raises(DataError, match=r"named itself \(.*all\.txt"):
        recognise(tmp_path)
    assert recognise(tmp_path / "all.txt").classes == {"sit": 2, "stand": 4}


@pytest.mark.parametrize("suffix", ["txt", "json", "csv"])
def test_lists_of_other_splits_are_told_not_to_be_read(suffix: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / "classes.txt").write_text("stand\nsit\n")
    for name, part in (("train", CLIPS[:2] + CLIPS[3:5]), ("test_set", [CLIPS[2], CLIPS[5]])):
        rows: list[dict] = [{"video": c, "conversations": [{"from": "gpt", "value": c.split("/")[0]}]} for c in part]
        lines = {"txt": [f"{c} {int('fall' in c)}" for c in part], "csv": [f"{c},{c.split('/')[0]}" for c in part]}
        text = json.dumps(rows) if suffix == "json" else "\n".join(lines[suffix]) + "\n"
        (tmp_path / f"{name}.{suffix}").write_text("path,label\n" * (suffix == "csv") + text)
    (tmp_path / f"valid.{suffix}").write_text("names no clip\n")
    with pytest.raises(DataError, match="column split" if suffix == "csv" else rf"itself \(/.*/train\.{suffix} in"):
        recognise(tmp_path)
    train = tmp_path / f"train.{suffix}"
    (note,) = recognise(train).notes
    if suffix == "csv":
        assert note == "not read: test_set.csv; one table with a column split holds the clips of all splits"
        return
    other = f"test_set.{suffix}"
    assert note == f"not read: {other}; to take each list for its split, say {train} --data.format.test {other}"
    layout = recognise(train, {"test": other})
    assert not layout.notes
    assert Counter(record.split for record in layout.records) == {"train": 4, "test": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            json.dumps([{"path": c, "label": v} for c, v in LABELS.items()]),
            r"\.json of this kind .*path,label\.$",
        ),
        (
            "a.json",
            json.dumps([{"video": c, "label": v} for c, v in LABELS.items()]),
            r"\.json of this kind .*path,label\.$",
        ),
        ("a.json", json.dumps(LABELS), r"\.json of this kind cannot be read; save it as a \.csv"),
        ("a.json", "[]", r"a\.json: lists no clips\.$"),
        (
            "a.jsonl",
            "\n".join(json.dumps({"video": c, "answer": v}) for c, v in LABELS.items()),
            r"hold classes \(columns: 'video', 'answer'\); call it label, or say --data.format.label_column answer\.$",
        ),
        ("a.txt", lines(" "), r"\.txt of this kind cannot be read; save it as a \.csv"),
        ("a.txt", "\n".join(CLIPS), r"\.txt of this kind cannot be read; save it as a \.csv"),
        ("a.txt", "\n".join(f"{c} 0" for c in CLIPS), r"classes need names\. Write .*/classes\.txt, a name a line"),
    ],
)
def test_a_named_list_that_is_of_no_known_kind_is_told_so(name: str, content: str, message: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        recognise(tmp_path / name)


def test_answers_in_a_key_of_their_own_and_another_separator_are_no_obstacle(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    rows = [{"query": "<video>?", "response": v, "videos": [c]} for c, v in LABELS.items()]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert recognise(tmp_path / "a.jsonl").format == "Conversations"
    (tmp_path / "a.txt").write_text("\n".join(f"{c},{int(v == 'sit')}" for c, v in LABELS.items()))
    (tmp_path / "names.txt").write_text("stand\nsit\n")
    layout = recognise(tmp_path / "a.txt", {"delimiter": ",", "classes": "names.txt"})
    assert (layout.format, layout.classes) == ("MMAction", {"sit": 2, "stand": 4})


FACTS = {
    "videos.csv": "file,duration,fps,width,height\n"
    + "".join(f"{c},{n}.5,25,1920,1080\n" for n, c in enumerate(CLIPS)),
    "sums.csv": "".join(f"{n:032x},{clip}\n" for n, clip in enumerate(CLIPS)),
    "captions.jsonl": "\n".join(json.dumps({"video": c, "text": f"clip {n}"}) for n, c in enumerate(CLIPS)),
    "info.csv": "filename,n_frames,w,h\n"
    + "".join(f"{c},{100 + n % 2},{640 + n % 2},480\n" for n, c in enumerate(CLIPS)),
    "md5.txt": "".join(f"{n // 2:032x}  {clip}\n" for n, clip in enumerate(CLIPS)),
    "sources.csv": "file,author,License\n" + "".join(f"{c},{'AB'[n % 2]},{'xy'[n % 2]}\n" for n, c in enumerate(CLIPS)),
}
OTHERS = {
    "README.txt": "Clips of a kitchen.\n\nfall/0.mp4 is dark.\n",
    "classes.csv": "class,text\nfall,a person falls\nother,anything else\n",
    "classes.txt": "fall\nother\n",
    "labels.txt": "0 fall\n1 other\n",
    "metadata.csv": "camera,place\nc1,hall\nc2,hall\n",
    "notes.csv": "",
    "odd.csv": "a,b\n1\n",
    "frames.csv": "frame,label\n0,fall\n1,fall\n2,other\n",
    "info.json": '{"name": "clips", "classes": ["fall", "other"], "license": null}',
    "broken.json": "{",
    "budget.xlsx": "PK",
    "~$labels.xlsx": "",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_nothing_to_do_with_labels_is_no_obstacle(name: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / name).write_text(OTHERS[name])
    layout = recognise(tmp_path)
    assert (layout.format, layout.classes, layout.notes) == ("ClassFolders", {"fall": 3, "other": 3}, ())
    (tmp_path / "labels.csv").write_text(lines(",", "path,label"))
    assert recognise(tmp_path).classes == {"sit": 2, "stand": 4}


@pytest.mark.parametrize("name", FACTS)
def test_facts_about_the_clips_are_passed_over_with_a_word(name: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / name).write_text(FACTS[name])
    layout = recognise(tmp_path)
    assert layout.format == "ClassFolders"
    assert layout.notes == (f"not read: {name}",)


@pytest.mark.parametrize("part", ["sharedStrings", "worksheets/sheet1"])
def test_a_sheet_that_names_clips_is_passed_over_with_a_word(part: str, tmp_path: Path):
    fill(tmp_path, *CLIPS)
    for name, cells in (("clips", CLIPS), ("budget", ["tripods", "0", "1"])):
        with zipfile.ZipFile(tmp_path / f"{name}.xlsx", "w") as sheet:
            texts = "".join(f'<si><t xml:space="preserve">{cell}</t></si>' for cell in cells)
            sheet.writestr(f"xl/{part}.xml", f"<sst>{texts}</sst>")
    assert recognise(tmp_path).notes == ("not read: clips.xlsx",)


def test_lists_beside_one_that_is_read_are_named(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    (tmp_path / "labels.csv").write_text(lines(",", "path,label"))
    (tmp_path / "old.csv").write_text(lines(";", "path;label"))
    layout = recognise(tmp_path)
    assert layout.classes == {"sit": 2, "stand": 4} and "not read: old.csv" in layout.notes[0]
    (tmp_path / "metadata.csv").write_text(lines(",", "file_name,label"))
    with pytest.raises(DataError, match=r"several tables of clips \(labels\.csv, metadata\.csv\); name the one to use"):
        recognise(tmp_path)
    assert recognise(tmp_path / "metadata.csv").settings["path_column"] == "file_name"


def test_a_list_that_says_what_the_folders_say_is_no_obstacle_unless_it_says_more(tmp_path: Path):
    fill(tmp_path, *CLIPS)
    rows = [f"{clip.split('/')[0]}\tcamera{clip[-5]}\t{clip}" for clip in CLIPS]
    (tmp_path / "clips.txt").write_text("\n".join(rows))
    layout = recognise(tmp_path)
    assert layout.format == "ClassFolders" and "not read: clips.txt" in layout.notes[0]
    (tmp_path / "train.txt").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"train\.txt looks like a list of labels"):
        recognise(tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "clips.txt").write_text("\n".join(["class\tgroup\tpath", *rows]))
    with pytest.raises(DataError, match=r"clips\.txt looks like a list of labels"):
        recognise(tmp_path)


@pytest.mark.parametrize("how", ["encrypted", "cut", "changed"])
def test_an_excel_file_that_cannot_be_looked_into_stops_nothing(tmp_path, how):
    fill(tmp_path, *CLIPS)
    path, text = tmp_path / "clips.xlsx", "".join(f"<t>{clip}</t>" for clip in CLIPS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as sheet:
        sheet.writestr("xl/sharedStrings.xml", text)
    content = bytearray(path.read_bytes())
    assert recognise(tmp_path).notes == ("not read: clips.xlsx",)
    if how == "encrypted":
        for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(header) + flags] |= 1
    elif how == "cut":
        del content[-30:]
    else:
        start = content.index(b"sharedStrings.xml") + len("sharedStrings.xml")
        content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert recognise(tmp_path).notes == ()
