"""`rbft rationales import` and `export` in real runs: who may come in, what is set aside, and that a run goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.runs import RIGHT, Run, fit

from rbft.__main__ import main
from rbft.files import read_jsonl
from rbft.rationales.import_export import write_rationale_file
from rbft.rationales.store import Rationale, read_rationales

pytest_plugins = ["tests.support.run_fixtures"]


def command(*args: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["rationales", *map(str, args)])
    return code, out.getvalue(), err.getvalue()


def written(run: Run) -> list[Rationale]:
    return read_rationales(run.folder / "write" / "rationales.jsonl")


def foreign(run: Run, path: Path, text: str = "Something moves there.") -> Path:
    rows = [
        {
            "videos": [f"/elsewhere/{r.video}"],
            "id": r.id,
            "messages": [
                {"role": "user", "content": "<video>what?"},
                {"role": "assistant", "content": f"{text}\nClassification: {r.label.upper()}"},
            ],
        }
        for r in written(run)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_a_write_stage_leaves_scores(finished):
    assert {name for r in written(finished) for name in r.scores} == {"label_parse", "leak", "repetition", "truncation"}


def test_exported_rationales_come_back(copy, tmp_path):
    own = copy.folder / "write" / "rationales.jsonl"
    out, back = tmp_path / "out.json", tmp_path / "back.jsonl"
    code, said, err = command("export", own, "--format", "llava", "--to", out, "--all")
    assert (code, err) == (0, "")
    assert f"{len(written(copy))} conversations" in said
    assert json.loads(out.read_text())[0]["conversations"][0]["value"].startswith("<video>\nwhy: moves left, turns")
    assert command("import", out, "--to", back)[0] == 0
    assert read_rationales(back) == written(copy)


def test_export_leaves_out_what_was_dropped_and_needs_the_questions(copy, tmp_path):
    own = copy.folder / "write" / "rationales.jsonl"
    first, *others = written(copy)
    write_rationale_file(own, [dataclasses.replace(first, kept=False), *others])
    code, said, _ = command("export", own, "--format", "messages", "--to", tmp_path / "out.jsonl")
    assert code == 0
    assert "(1 dropped rationales left out)" in said
    assert [row["videos"] for _, row in read_jsonl(tmp_path / "out.jsonl")] == [[r.video] for r in others if r.kept]
    alone = tmp_path / "alone.jsonl"
    write_rationale_file(alone, others)
    code, _, err = command("export", alone, "--format", "llava", "--to", tmp_path / "x.json")
    assert (code, "name the experiment file with --config" in err) == (2, True)


def test_a_run_goes_on_with_imported_rationales(copy, tmp_path):
    file = foreign(copy, tmp_path / "theirs.json")
    flags = ["--run_root", str(copy.root), "--variant", "imported"]
    code, said, err = command("import", file, "--to", copy.config, *flags)
    assert (code, err) == (0, "")
    assert "6 rationales of 6 of 6 training videos" in said
    result = fit("--config", copy.config, *flags, "--stage", "write")
    assert result.code == 0, result.err
    assert "continuing where it stopped" in result.out
    found = read_rationales(copy.folder.parents[1] / "imported" / "seed0" / "write" / "rationales.jsonl")
    assert {(r.text, r.model, r.kept) for r in found} == {("Something moves there.", "imported from theirs.json", True)}
    assert [(r.id, r.label, r.stated) for r in found] == [(r.id, r.label, r.label) for r in written(copy)]
    assert all(r.scores["label_parse"] == 1 for r in found), "they were checked"


@pytest.mark.parametrize("given", [(), ("--conclusion", "so"), ("--config", "tiny.yaml")], ids=str)
def test_edited_answers_of_an_export_come_into_a_run_without_their_conclusion(copy, tmp_path, monkeypatch, given):
    monkeypatch.chdir(copy.config.parent)
    out = tmp_path / "out.json"
    own = [dataclasses.replace(r, text="It moves.") for r in written(copy)]
    write_rationale_file(copy.folder / "write" / "rationales.jsonl", own)
    assert command("export", copy.folder / "write" / "rationales.jsonl", "--format", "messages", "--to", out)[0] == 0
    rows = json.loads(out.read_text())
    rows[0]["messages"][-1]["content"] = f"Edited. so {rows[0]['rbft']['label']}"
    out.write_text(json.dumps(rows))
    flags = ["--run_root", str(copy.root), "--variant", "edited"]
    code, _, err = command("import", out, "--to", copy.config, *given, *flags)
    assert (code, err) == (0, "")
    (store,) = (copy.folder.parents[1] / "edited" / "seed0" / "write").rglob("*.jsonl")
    assert [(r.text, r.stated) for r in read_rationales(store)] == [
        ("Edited.", own[0].label),
        *((r.text, r.stated) for r in own[1:]),
    ]
    rows[0]["messages"][-1]["content"] = f"Edited. so {rows[-1]['rbft']['label']}"
    out.write_text(json.dumps(rows))
    code, _, err = command("import", out, "--to", copy.config, *given, *flags)
    assert (code, "is of the class" in err) == (1, True), err


def test_a_run_that_was_trained_on_others_refuses(copy, tmp_path):
    code, _, err = command("import", foreign(copy, tmp_path / "x.json"), "--to", copy.folder)
    assert (code, "has been trained on other rationales" in err) == (1, True)
    assert len(written(copy)) == 6


def test_a_run_that_was_moved_is_told_so_wherever_it_is(copy, tmp_path):
    file = foreign(copy, tmp_path / "x.json")
    with TemporaryDirectory(dir="/tmp") as folder:
        shutil.copytree(copy.folder, folder, dirs_exist_ok=True)
        code, _, err = command("import", file, "--to", folder)
    assert (code, "the run was moved; give its experiment file and --run_root" in err) == (2, True), err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(id="test/x", videos=["test/x.mp4"]), "is not a training video of this run"),
        (lambda rows: rows[0]["messages"][1].update(content=f"x\nClassification: {RIGHT}"), "is of the class"),
        (lambda rows: rows.append(rows[0]), "more than 1 rationales of"),
        (
            lambda rows: rows[0]["messages"][1].update(content="<|im_end|> x\nClassification: moves left"),
            "control token",
        ),
    ],
)
def test_what_must_not_come_into_a_run_is_refused(copy, tmp_path, change, message):
    file = foreign(copy, tmp_path / "theirs.json")
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))
    flags = ["--run_root", str(copy.root), "--variant", "imported"]
    code, _, err = command("import", file, "--to", copy.config, *flags)
    assert (code, message in err) == (1, True), err
    assert not (copy.folder.parents[1] / "imported").exists()


def test_texts_of_other_clips_are_left_out_and_counted_on_request(copy, tmp_path):
    file = foreign(copy, tmp_path / "theirs.json")
    rows = json.loads(file.read_text())
    for row in rows[:2]:
        row.update(id="test/x", videos=["test/x.mp4"])
    file.write_text(json.dumps(rows))
    flags = ["--run_root", str(copy.root), "--variant", "imported"]
    assert command("import", file, "--to", copy.config, *flags)[0] == 1
    code, said, err = command("import", file, "--to", copy.config, "--skip", *flags)
    assert (code, err) == (0, "")
    assert "4 rationales of 4 of 6 training videos" in said
    assert "2 rationales are of videos that this run does not train on, and are left out." in said
    (store,) = (copy.folder.parents[1] / "imported" / "seed0" / "write").rglob("*.jsonl")
    assert [r.id for r in read_rationales(store)] == [row["id"] for row in rows[2:]]
    code, _, err = command("import", file, "--to", tmp_path / "x.jsonl", "--skip")
    assert (code, "--skip: which clips are trained on is known of a run only" in err) == (2, True)
    for row in rows:
        row.update(id="test/x", videos=["test/x.mp4"])
    file.write_text(json.dumps(rows))
    code, _, err = command("import", file, "--to", copy.config, "--skip", *flags)
    assert code == 1 and "training video" in err, "nothing is left to import"


def test_files_are_written_where_asked_and_nowhere_else(copy, tmp_path):
    out = tmp_path / "there"
    out.mkdir()
    (out / "x.jsonl").write_text("mine")
    own = copy.folder / "write" / "rationales.jsonl"
    code, said, _ = command("import", own, "--to", out / "x.jsonl")
    assert code == 0
    assert "what was there is now" in said
    assert {path.name for path in out.iterdir()} == {"x.jsonl", "x.jsonl.old-1"}
    assert (out / "x.jsonl.old-1").read_text() == "mine"
    code, _, err = command("import", own, "--to", out / "x.txt")
    assert (code, "name a .jsonl file, a run folder or an experiment file" in err) == (2, True)


def test_an_audit_overwrites_nothing(copy, tmp_path):
    own, figures, page = copy.folder / "write" / "rationales.jsonl", tmp_path / "x.json", tmp_path / "x.html"
    figures.write_text("mine")
    page.write_text("mine")
    code, said, _ = command("audit", own, "--json", figures, "--html", page)
    assert code == 0 and said.count("what was there is now") == 2
    assert [(tmp_path / f"{path.name}.old-1").read_text() for path in (figures, page)] == ["mine", "mine"]
    code, _, err = command("audit", own, "--json", tmp_path)
    assert (code, "is a folder" in err) == (2, True)


def test_a_policy_of_the_experiment_decides(copy):
    checks = '[{"class_path": "Truncation"}, {"class_path": "Contradiction", "init_args": {"threshold": 0.0}}]'
    keep = '{"class_path": "Filter", "init_args": {"on_empty_class": "keep_best"}}'
    flags = ["--run_root", copy.root, "--variant", "filtered", "--stage", "write"]
    result = fit("--config", copy.config, *flags, "--model.checks", checks, "--model.keep", keep)
    assert result.code == 0, result.err
    assert "dropped: " not in result.out, "all are cut at six tokens, so the best of each video are kept all the same"
    found = read_rationales(copy.folder.parents[1] / "filtered" / "seed0" / "write" / "rationales.jsonl")
    assert {frozenset(r.scores) for r in found} == {frozenset({"truncation", "contradiction"})}
    assert all(r.reason.startswith("best of a class that lost all; truncation 0.00") for r in found)
    strict = fit("--config", copy.config, *flags, "--restart", "--model.checks", checks, "--model.keep", "Filter")
    assert strict.code == 1
    assert "are dropped (truncation: 3)" in strict.err
    wrong = fit("--config", copy.config, *flags, "--model.checks", "[Trunkation]")
    assert wrong.code == 2
    assert "Trunkation" in wrong.err


def test_a_run_folder_stands_for_its_rationales(finished, tmp_path):
    own = finished.folder / "write" / "rationales.jsonl"
    for named in (finished.folder, finished.folder / "write"):
        assert command("audit", named) == command("audit", own)
    assert "is a folder that holds no rationales.jsonl" in command("audit", tmp_path)[2]
    for stage in ("a", "b"):
        (tmp_path / stage).mkdir()
        shutil.copy(own, tmp_path / stage)
    assert (
        f"holds {tmp_path / 'a' / own.name}, {tmp_path / 'b' / own.name}; name a file" in command("audit", tmp_path)[2]
    )
