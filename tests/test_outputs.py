"""Results go where they were asked to: the place is tried before the work, and tables survive spreadsheets."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest
from tests.support.finished_runs import write_grid
from tests.support.sweeps import write_sweep

from rbft.__main__ import main
from rbft.data.formats.rows import read_table
from rbft.errors import ConfigError
from rbft.export import build
from rbft.files import plain_cell, remove_unfinished, require_writable, write_csv
from rbft.predict.answers import Answer, write_answers

FORMULAS = ["=1+1", "+1", "-5", "@SUM(A1)", "\tx", "\rx", "'=1", "''-5", "'quoted'", "plain", "a=b", ""]


def test_no_cell_of_a_table_is_a_formula_and_all_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    answers = [Answer(f"{text}.mp4", text or None, 0.5, rationale=text, error=text) for text in FORMULAS]
    write_answers(path, answers)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, text in zip(rows, FORMULAS, strict=True):
        assert not [cell for cell in row.values() if cell[:1] in tuple("=+-@\t\r")]
        assert [plain_cell(row[key]) for key in ("video", "predicted", "rationale", "error")] == [
            f"{text}.mp4",
            *3 * [text],
        ]
    for row, text in zip(read_table(path), FORMULAS, strict=True):
        assert row.text("video") == f"{text}.mp4".strip(), "as a table of videos and their classes"
        assert row.text("predicted") == text.strip()


def test_rows_are_written_whole(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [["a", "b"], ["with, comma", 'a "quote"']])
    assert list(csv.reader((tmp_path / "x.csv").open())) == [["a", "b"], ["with, comma", 'a "quote"']]


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder below a file, which not even root can make."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


def test_a_place_is_tried_without_leaving_anything(nowhere: Path, tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deeper" / "x.json", "--to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(ConfigError, match=r"--to .*x\.json: cannot be written \(Not a directory\); name another place"):
        require_writable(nowhere / "x.json", "--to")


def test_commands_say_so_before_the_work(nowhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write_grid(tmp_path / "runs")
    sweep = write_sweep(tmp_path / "sweep", grid={"seed_everything": [0]})
    rationales = tmp_path / "r.jsonl"
    rationales.write_text("")
    for args in (
        # the run is not even looked at
        ["predict", "--run", str(tmp_path), str(tmp_path), "--to", str(nowhere / "a.jsonl")],
        ["export", "--run", str(tmp_path), "--to", str(nowhere / "model")],
        ["report", str(runs), "--to", str(nowhere / "a.html")],
        ["report", str(runs), "--to", str(tmp_path / "a.html"), "--markdown", str(nowhere / "a.md")],
        ["report", str(runs), "--to", str(tmp_path / "a.html"), "--tensorboard", str(nowhere)],
        ["rationales", "audit", str(rationales), "--json", str(nowhere / "a.json")],
        ["rationales", "audit", str(rationales), "--html", str(nowhere / "a.html")],
        ["rationales", "import", str(rationales), "--to", str(nowhere / "a.jsonl")],
        ["rationales", "export", str(rationales), "--format", "llava", "--to", str(nowhere / "a.json")],
        ["sweep", "--config", str(sweep), "--run_root", str(nowhere)],
    ):
        assert main(args) == 2, args
        said = capsys.readouterr()
        assert "cannot be written (Not a directory); name another place" in said.err and said.err.count("\n") == 1, args
    assert not (tmp_path / "a.html").exists()


def test_what_a_killed_export_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - 3600
    names = (
        ".model.abc.unfinished",
        ".model.def.unfinished",
        ".model.new.unfinished",
        ".model2.abc.unfinished",
        ".git",
    )
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("")
        if "new" not in name:
            os.utime(tmp_path / name, (old, old))
    running = build._lock_of(tmp_path / names[1])
    running.acquire()
    try:
        build._remove_abandoned(tmp_path / "model")
    finally:
        build._release(running)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_what_a_killed_sweep_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name, age in ((".a.json.x.tmp", 7200), (".b.json.x.tmp", 0)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_unfinished(tmp_path, 3600)
    assert [path.name for path in tmp_path.iterdir()] == [".b.json.x.tmp"]
