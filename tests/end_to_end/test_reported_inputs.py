"""Files and settings that people reported to be read wrongly, through the commands: each ends as it should."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from tests.support.runs import Result, fit, write_experiment
from tests.support.scenes import scene, write_scene
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.data.formats import ClassFolders, Table
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.predict import expand

TINY = Path("builtin/tiny")


def command(*args: str | Path) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(map(str, args)))
    return Result(code, " ".join(out.getvalue().split()), err.getvalue())


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Eight clips, all different."""
    for number in range(8):
        write_scene(tmp_path / f"clips/v{number}.mp4", number)
    return tmp_path / "clips"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a cache of its own."""
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SIGNS = [("+", "-"), ("-1", "1"), ("+1", "-1"), ("-5", "5")]


@pytest.mark.parametrize("names", SIGNS)
def test_a_class_keeps_its_sign_from_the_table_to_the_question(names: tuple[str, str], clips: Path) -> None:
    rows = "".join(f"v{number}.mp4,{names[number % 2]}\n" for number in range(8))
    (clips / "labels.csv").write_text(f"path,label\n{rows}")
    labels = LabelSet.from_records(Table().read(clips))
    question = PromptBook(Prompts(label_question="Which of {labels}?"), labels).label_prompt().question
    assert question == f"Which of {', '.join(sorted(names))}?"


def test_classes_that_are_signs_are_planned(clips: Path, here: Path) -> None:
    rows = "".join(f"v{number}.mp4,{'+-'[number % 2]}\n" for number in range(8))
    (clips / "labels.csv").write_text(f"path,label\n{rows}")
    result = fit(clips, "--dry_run")
    assert result.code == 0, result.err
    assert "+ 4, - 4" in (here / "runs/clips/clips.yaml").read_text().splitlines()[0]


def test_of_a_folder_from_a_mac_its_videos_are_answered_and_nothing_else(clips: Path) -> None:
    for place in ("sub.mp4/e.mp4", ".trash/gone.mp4", "__MACOSX/._v0.mp4", "._v0.mp4"):
        (clips / place).parent.mkdir(exist_ok=True)
        if place.startswith("sub"):
            shutil.copy(clips / "v0.mp4", clips / place)
        else:
            (clips / place).write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    assert sorted(video.path for video in expand(clips)) == sorted(["sub.mp4/e.mp4", *(f"v{i}.mp4" for i in range(8))])


def test_a_class_folder_of_mixed_suffixes_is_checked_whole(here: Path) -> None:
    """Half of each class as cameras and old programs store it."""
    seed = 0
    for name, suffix, how in (
        ("fall", ".mts", {"container": "mpegts"}),
        ("no_fall", ".wmv", {"codec": "wmv2", "container": "asf"}),
    ):
        for number in range(4):
            write_scene(here / "mixed" / name / f"c{number}.mp4", seed)
            write_video(here / "mixed" / name / f"d{number}{suffix}", scene(seed + 1), **how)
            seed += 2
        (here / "mixed" / name / "cover.jpg").touch()
    result = command("check", "mixed")
    assert result.code == 0, result.out
    assert (
        "16 clips of 2 classes" in result.out and "left out are 2 files without a video's suffix (.jpg 2)" in result.out
    )
    counts = json.loads(next((here / "runs").rglob("check.json")).read_text())["counts"]
    assert sum(sum(side.values()) for side in counts.values()) == 16
    assert len(ClassFolders().read(here / "mixed")) == 16


def test_an_adapter_in_a_head_that_is_tied_is_refused_before_a_video_is_read(clips: Path, here: Path) -> None:
    for number in range(8):
        folder = here / "data" / ("train" if number < 4 else "test") / ("a", "b")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (clips / f"v{number}.mp4").rename(folder / f"{number}.mp4")
    config = write_experiment(here / "falls.yaml", here / "data", TINY)
    (here / "head.yaml").write_text(
        'model:\n  tuning: {class_path: LoRA, init_args: {targets: ".*(q_proj|v_proj|lm_head)"}}\n'
    )
    result = fit(config, "head.yaml", "--method", "sft")
    assert result.code in (1, 2)
    assert "lm_head" in result.err and "targets" in result.err and len(result.err.strip().splitlines()) == 1
    assert not (here / "cache/video_facts.jsonl").exists(), "nothing was decoded"
