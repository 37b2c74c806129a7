"""Writing in several attempts, in whole runs: who is written about again, what stays, and what a kill changes."""

from __future__ import annotations

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import Run, fit, fit_elsewhere, rows, run_experiment, write_experiment

from rbft.rationales.checks.base import Check, Material
from rbft.rationales.store import prompt_hash
from rbft.vlm.prompt import Prompt

pytest_plugins = ["tests.support.run_fixtures"]

# random weights state no class, so every text fails: blind, hinted, and two more
FAILING: dict[str, Any] = {
    "model": {
        "prompts": {"hint": "blind_then_hint"},
        "checks": ["LabelParse"],
        "keep": {"class_path": "Filter", "init_args": {"on_empty_class": "keep_best"}},
        "writer": {"regenerate": {"attempts": 2, "temperature": 1.2}},
    }
}
ATTEMPTS, VIDEOS = 4, 6
WRITE = ("--stage", "write")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
FILE = Path("write/rationales.jsonl")


class Coin(Check):
    """Passes about half of all texts, always the same."""

    name = "coin"

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)

    def _scores(self, material: Material) -> list[float | None]:
        return [float(zlib.crc32(r.text.encode()) % 2) for r in material.rationales]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("attempts")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), FAILING)
    return run_experiment(config, folder / "runs", *WRITE)


def test_videos_without_a_rationale_are_written_about_again(undisturbed: Run, clips: Path) -> None:
    written = rows(undisturbed.folder / FILE)
    assert [row["sample"] for row in written] == list(range(ATTEMPTS)) * VIDEOS
    assert [row["video"] for row in written] == sorted(
        path.relative_to(clips).as_posix() for path in clips.glob("train/*/*.mp4") for _ in range(ATTEMPTS)
    )
    asked = {
        "blind": prompt_hash(Prompt("why: moves left, turns around quickly?")),
        "moves left": prompt_hash(Prompt("why moves left?")),
        "turns around quickly": prompt_hash(Prompt("why turns around quickly?")),
    }
    for row in written:
        blind = row["sample"] == 0
        assert row["hint"] == ("blind" if blind else "hint_stripped")
        assert row["prompt_hash"] == asked["blind" if blind else row["label"]]
        # the second attempt is as likely as can be, the others are drawn
        kept = row["sample"] == 1
        reason = "label_parse 0.00 below 0.50" if row["text"] else "empty"
        expected = "unstated class" if blind else f"best of a class that lost all; {reason}" if kept else reason
        assert (row["kept"], row["reason"]) == (kept, expected)
        assert row["scores"] == ({} if blind or not row["text"] else {"label_parse": 0.0})
    by_video = {row["id"]: [r["text"] for r in written if r["id"] == row["id"]] for row in written}
    assert all(len(set(texts)) == ATTEMPTS for texts in by_video.values()), "every attempt is another text"


def test_the_run_says_so(undisturbed: Run) -> None:
    out = undisturbed.result.out
    for number in (2, 3, 4):
        assert f"attempt {number}: 6 videos have no rationale yet" in out
    assert "classes that lost all and keep the best of each video: moves left 3, turns around quickly 3" in out
    assert "6 videos, 1 rationale(s) each, up to 4 attempts where none is kept" in " ".join(out.split())
    summary = json.loads((undisturbed.folder / "write" / "stage.json").read_text())["summary"]
    assert (summary["rationales"], summary["kept"], summary["videos_without"]) == (24, 6, 0)
    assert summary["scores"] == {"label_parse": 0.0}


@pytest.mark.parametrize("left", [3, 6, 8, pytest.param(0, marks=pytest.mark.slow), 17])
def test_a_kill_anywhere_loses_nothing_and_changes_nothing(undisturbed: Run, tmp_path: Path, left: int) -> None:
    shutil.copytree(undisturbed.root, tmp_path / "runs")
    run = Run(
        undisturbed.config,
        tmp_path / "runs",
        tmp_path / undisturbed.folder.relative_to(undisturbed.root.parent),
        undisturbed.result,
    )
    whole = (run.folder / FILE).read_bytes()
    for name in (FILE, "write/stage.json"):
        (run.folder / name).unlink()
    part = run.folder / "write" / "parts" / "rank0.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    assert len(lines) == ATTEMPTS * VIDEOS
    # in the middle of a row, as a kill may leave it
    part.write_bytes(b"".join(lines[:left]) + lines[min(left, 23)][:20])
    result = run.again("--method", "rbft", "--seed_everything", "0", *WRITE)
    assert result.code == 0, result.err
    assert (run.folder / FILE).read_bytes() == whole
    assert part.read_bytes().splitlines(keepends=True)[:left] == lines[:left], "nothing was written twice"
    assert len(part.read_bytes().splitlines()) == ATTEMPTS * VIDEOS


def test_only_those_that_need_it(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> None:
    coin = "tests.rationales.test_attempts.Coin"
    changes = {"model": FAILING["model"] | {"prompts": {"hint": "hint_stripped"}, "checks": [{"class_path": coin}]}}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), changes)
    result = fit("--config", config, "--run_root", tmp_path / "runs", *WRITE, "--allow-class", coin)
    assert result.code == 0, result.err
    written = rows(tmp_path / "runs" / "tiny" / "rbft" / "seed0" / FILE)
    counts = Counter(row["id"] for row in written)
    for name, count in counts.items():
        mine = [row for row in written if row["id"] == name]
        kept = [row["sample"] for row in mine if not row["reason"]]
        # the attempt that passes is the last one
        assert kept == [count - 1] or count == 3
    assert len(set(counts.values())) > 1, "some needed another attempt and some did not"


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, 6])
def test_two_processes_write_the_same(undisturbed: Run, tmp_path: Path, left: int | None) -> None:
    """Also where the first attempt was written before, so that the other process hears of the second one first."""
    folder = tmp_path / "runs" / undisturbed.folder.relative_to(undisturbed.root)
    if left is not None:
        shutil.copytree(undisturbed.folder, folder)
        for name in (FILE, "write/stage.json"):
            (folder / name).unlink()
        part = folder / "write" / "parts" / "rank0.jsonl"
        part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:left]))
    result = fit_elsewhere(
        "--config",
        undisturbed.config,
        "--run_root",
        tmp_path / "runs",
        "--method",
        "rbft",
        "--seed_everything",
        "0",
        *WRITE,
        *TWO,
    )
    assert result.code == 0, result.err
    assert rows(folder / FILE) == rows(undisturbed.folder / FILE)
    assert len(rows(folder / "write" / "parts" / "rank1.jsonl")) >= 6, "both wrote"


def test_a_class_that_keeps_nothing_ends_the_run_and_all_attempts_can_be_read(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), FAILING)
    flags = ("--model.keep.on_empty_class", "error", "--model.writer.regenerate", "null")
    result = fit("--config", config, "--run_root", tmp_path / "runs", *WRITE, *flags)
    assert result.code == 1
    assert "6 of 6 rationales of the class 'moves left' are dropped (unstated: 3, label_parse: 3)" in result.err
    assert "model.writer.regenerate" in result.err
    written = rows(tmp_path / "runs" / "tiny" / "rbft" / "seed0" / FILE)
    assert len(written) == 12 and not any(row["kept"] for row in written)


def test_attempts_that_fsdp2_could_not_agree_on_are_refused(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), FAILING)
    flags = ("--trainer.strategy", "fsdp2", "--model.checks", "[Contradiction]", *WRITE)
    result = fit("--config", config, "--run_root", tmp_path / "runs", *flags)
    assert result.code == 2
    assert "the stage 'write': trainer.strategy fsdp2 does not write rationales in several attempts" in result.err
    assert not (tmp_path / "runs").exists()
