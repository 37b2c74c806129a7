"""Rationales are written once for all runs that ask for the same, and only what a run would write itself is taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tests.support.runs import Result, Run, fit, rows

from rbft.runs.stage_record import hash_outputs

pytest_plugins = ["tests.support.run_fixtures"]

SAID = "write: rationales from a finished run"


def joint(run: Run, *flags: str) -> Result:
    """Another method over the same rationales, in the same run root; its write stage alone."""
    return fit("--config", run.config, "--run_root", run.root, "--method", "joint", "--stage", "write", *flags)


def stage(run: Run, method: str) -> Path:
    return run.root / run.folder.parents[1].name / method / run.folder.name / "write"


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stage.json").read_text())


def test_taken_from_a_finished_run(copy: Run) -> None:
    result = joint(copy)
    assert result.code == 0, result.err
    mine, theirs = stage(copy, "joint"), stage(copy, "rbft")
    assert f"{SAID}, {theirs}" in result.out
    assert (mine / "rationales.jsonl").read_bytes() == (theirs / "rationales.jsonl").read_bytes()
    assert record(mine)["outputs"] == record(theirs)["outputs"]
    assert record(mine)["fingerprint"] == record(theirs)["fingerprint"]
    assert record(mine)["summary"]["taken_from"] == str(theirs)
    assert (mine / "config.yaml").is_file() and list((mine / "tensorboard").iterdir())
    assert not (mine / "parts").exists(), "nothing was written"
    again = joint(copy)
    assert again.code == 0 and "write: done already" in again.out


def test_a_restart_writes_its_own(copy: Run) -> None:
    result = joint(copy, "--restart")
    assert result.code == 0, result.err
    assert SAID not in result.out
    assert "taken_from" not in record(stage(copy, "joint"))["summary"]


@pytest.mark.parametrize("what", ["changed by hand", "gone", "imported", "of another seed"])
def test_not_taken(what: str, copy: Run) -> None:
    theirs = stage(copy, "rbft")
    path = theirs / "rationales.jsonl"
    flags: tuple[str, ...] = ()
    if what == "changed by hand":
        path.write_text(path.read_text().replace('"hint"', '"hint" '))
    elif what == "gone":
        path.unlink()
    elif what == "imported":
        # as an import leaves it once the run has checked the texts: finished and unharmed, but not the model's own
        lines = [json.dumps(row | {"model": "imported from other.jsonl"}) for row in rows(path)]
        path.write_text("\n".join(lines) + "\n")
        done = record(theirs) | {"outputs": hash_outputs(theirs, ["rationales.jsonl"])}
        (theirs / "stage.json").write_text(json.dumps(done))
    else:
        flags = ("--seed_everything", "1")
    result = joint(copy, *flags)
    assert result.code == 0, result.err
    assert SAID not in result.out
    if what in ("changed by hand", "gone"):
        assert f"write: not taken from {theirs}" in result.out
    mine = stage(copy, "joint") if not flags else stage(copy, "joint").parents[1] / "seed1" / "write"
    assert {row["model"] for row in rows(mine / "rationales.jsonl")} != {"imported from other.jsonl"}
    assert "taken_from" not in record(mine)["summary"]


def test_what_a_run_has_begun_stays_its_own(copy: Run) -> None:
    mine = stage(copy, "joint")
    (mine / "parts").mkdir(parents=True)
    done = rows(stage(copy, "rbft") / "rationales.jsonl")
    (mine / "parts" / "rank0.jsonl").write_text(json.dumps(done[0] | {"written": "mine", "text": "mine"}) + "\n")
    (mine / "started.json").write_text(json.dumps({"inputs": record(stage(copy, "rbft"))["inputs"]}))
    result = joint(copy)
    assert result.code == 0, result.err
    assert "write: continuing where it stopped" in result.out and SAID not in result.out
    assert "mine" in [row["text"] for row in rows(mine / "rationales.jsonl")]


@pytest.mark.slow
def test_a_run_waits_for_another_that_is_writing(copy: Run, tmp_path: Path) -> None:
    fingerprint = record(stage(copy, "rbft"))["fingerprint"]
    lock = FileLock(copy.folder.parents[1] / f".{fingerprint}.writing.lock")
    command = [
        str(Path(sys.executable).with_name("rbft")),
        "fit",
        "--config",
        str(copy.config),
        "--run_root",
        str(copy.root),
        "--method",
        "joint",
        "--stage",
        "write",
    ]
    marker = stage(copy, "rbft") / "stage.json"
    written = marker.read_bytes()
    marker.unlink()  # not finished yet
    with lock:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        said = ""
        while "waiting for it" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        marker.write_bytes(written)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert SAID in out
