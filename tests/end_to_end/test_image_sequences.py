"""Folders of numbered images, from check to export: the same as the encoded videos, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.runs import CLASSES, Result, fit, rows, write_experiment
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.labelling.clips import find_clips, read_order

FPS = 4
SIDES = {"train": 2, "val": 1, "test": 2}
CODING = {"codec": "ffv1", "pix_fmt": "bgr0"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Videos in class folders, each as a folder of images, and each as a file without loss."""
    images, files = (tmp_path_factory.mktemp(name) for name in ("images", "files"))
    rng = np.random.default_rng(0)
    for side, count in SIDES.items():
        for name in CLASSES:
            for number in range(count):
                frames = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
                folder = images / side / name / f"{number}"
                folder.mkdir(parents=True)
                (files / side / name).mkdir(parents=True, exist_ok=True)
                # with words and zeros before the numbers, and without either
                for place, frame in enumerate(frames, start=6):
                    Image.fromarray(frame).save(folder / (f"{place}.png" if number else f"frame_{place:03d}.png"))
                write_video(files / side / name / f"{number}.mkv", frames, fps=FPS, **CODING)
    return images, files


def test_a_whole_run_is_that_of_the_files(both, tmp_path, capsys):
    found = {}
    for kind, root in zip(("images", "files"), both, strict=True):
        format = {"class_path": "ClassFolders", "init_args": {"frame_rate": FPS}}
        changes = {"data": {"format": format}, "method": "sft"}
        config = write_experiment(tmp_path / f"{kind}.yaml", root, Path("builtin/tiny"), changes)
        given = ("--config", config, "--run_root", tmp_path / "runs", "--data.cache_dir", tmp_path / kind)
        assert main(["check", *map(str, given)]) == 0, capsys.readouterr().out
        said = capsys.readouterr().out
        assert "left out" not in said, said
        result = fit(*given)
        assert result.code == 0, result.err
        run = tmp_path / "runs" / kind / "sft/seed0"
        scores = [(row["label"], row["log_likelihoods"]) for row in rows(run / "predictions.jsonl")]
        weights = [path.read_bytes() for path in sorted(run.glob("*/adapter/*.safetensors"))]
        assert weights
        found[kind] = (scores, weights)
    assert found["images"] == found["files"]

    images, run = both[0], tmp_path / "runs/images/sft/seed0"
    tested = rows(run / "predictions.jsonl")
    assert [row["id"] for row in tested] == [f"test/{name}/{number}" for name in CLASSES for number in range(2)]
    assert {row["video"] for row in tested} == {f"{row['id']}#fps=4" for row in tested}
    assert main(["report", str(run), "--to", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "the video is not there any more" not in page and "cannot be shown" not in page

    # by the folder with its rate from the run, by a table, and one by itself with the rate said
    table = images / "test" / "these.csv"
    table.write_text("path,fps\n" + "".join(f"{row['id'].removeprefix('test/')},{FPS}\n" for row in tested))
    one = images / tested[0]["id"]
    for what, count in ((images / "test", 4), (table, 4), (one, 1)):
        answers = tmp_path / "answers.jsonl"
        ask = ["predict", "--run", str(run), str(what), "--to", str(answers)]
        assert main([*ask, "--frame-rate", str(FPS)] if what == one else ask) == 0
        told = [json.loads(line) for line in answers.read_text().splitlines()]
        assert [Path(row["video"]).relative_to(images).as_posix() for row in told] == [
            row["id"] for row in tested[:count]
        ]
        for answer, row in zip(told, tested, strict=False):
            assert answer["predicted"] == row["predicted"]
            assert answer["probability"] == pytest.approx(max(row["calibrated"] or row["probabilities"]), abs=1e-6)
    table.unlink()
    assert main(["predict", "--run", str(run), str(one), "--window", "1", "--to", str(answers)]) == 0
    assert len(json.loads(answers.read_text())["timeline"]) == 2

    shutil.copytree(one, tmp_path / "new" / "kitchen")
    capsys.readouterr()
    assert main(["suggest", "--run", str(run), str(tmp_path / "new"), "--to", str(tmp_path / "suggested")]) == 0
    assert "rbft label CLIPS --frame-rate 4 --order" in " ".join(capsys.readouterr().out.split())
    found = find_clips(tmp_path / "new", frame_rate=FPS)
    assert [clip.name for clip in read_order(tmp_path / "suggested/label_next.csv", found)] == ["kitchen#fps=4"]

    assert main(["export", "--run", str(run), "--to", str(tmp_path / "exported")]) == 0
    told = json.loads((tmp_path / "exported/rbft.json").read_text())["parity"]
    assert (told["clips"], told["answered"]) == (6, 2), "its program looked at the images of all of them"


def command(*args: str | Path) -> Result:
    return fit(*args, "--dry_run")


def test_a_folder_of_images_is_no_clip_before_its_rate_is_said(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = shutil.copytree(both[0], tmp_path / "clips")
    asked = fit(clips / "train")
    assert asked.code == 1
    assert "holds folders of numbered images. Say their frames a second" in asked.err
    assert "--data.format.frame_rate 25" in asked.err
    planned = command(clips / "train", "--data.format.frame_rate", "4")
    assert planned.code == 0, planned.err
    assert "4 clips of 2 classes, from a folder for each class" in planned.out
    assert '"frame_rate": 4.0' in (tmp_path / "runs/train/train.yaml").read_text()
    assert "must be a number of frames a second" in command(clips / "train", "--data.format.frame_rate", "x").err
    loose = clips / "train" / CLASSES[0] / "frame_1.png"
    shutil.copy(next((clips / "train").rglob("frame_006.png")), loose)
    assert (
        "holds images itself; each video needs a folder"
        in command(clips / "train", "--data.format.frame_rate", "4").err
    )
    loose.unlink()
    (clips / "labels.csv").write_text(
        "path,label,fps\n" + "".join(f"train/{name}/{number},{name},\n" for name in CLASSES for number in range(2))
    )
    asked = command(clips)
    assert asked.code == 1
    assert "labels.csv, row 2: train/moves left/0 is a folder; to take each for a video" in asked.err
    (clips / "labels.csv").write_text((clips / "labels.csv").read_text().replace(",\n", ",0\n"))
    assert "'fps' must be the frames a second of the images, such as 25; found '0'" in command(clips).err
