"""Rows with start and end, from check to report: the same as a file cut out for each, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.runs import CLASSES, fit, rows, write_experiment
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling

LOSSLESS = {"qp": "0", "preset": "ultrafast"}
FPS, LENGTH = 4, 8  # frames of a part
SIDES = ("train", "train", "val", "test")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Recordings of two parts each with a table of parts, and the same parts as files."""
    folder = tmp_path_factory.mktemp("parts")
    parts, files = folder / "parts", folder / "files"
    rng = np.random.default_rng(0)
    tables = {parts: ["path,label,split,start,end"], files: ["path,label,split"]}
    for number, side in enumerate(SIDES):
        coarse = rng.integers(0, 256, (2 * LENGTH, 4, 4, 3), dtype=np.uint8)
        frames = coarse.repeat(16, axis=1).repeat(16, axis=2)
        (parts / "r").mkdir(parents=True, exist_ok=True)
        (files / "r").mkdir(parents=True, exist_ok=True)
        write_video(parts / f"r/{number}.mp4", frames, fps=FPS, codec_options=LOSSLESS)
        for place, name in enumerate(CLASSES):
            begin = place * LENGTH
            write_video(
                files / f"r/{number}-{place}.mp4", frames[begin : begin + LENGTH], fps=FPS, codec_options=LOSSLESS
            )
            start, end = begin / FPS, (begin + LENGTH) / FPS
            tables[parts].append(f"r/{number}.mp4,{name},{side},{start:g},{end:g}")
            tables[files].append(f"r/{number}-{place}.mp4,{name},{side}")
    for root, lines in tables.items():
        (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return parts, files


def test_a_part_has_the_pixels_and_times_of_a_file(both):
    parts, files = both
    for place in (0, 1):
        spec = ClipSpec(FrameSampling(num_frames=4))
        one = read_clip("r/0.mp4", spec.of_part((2.0 * place, 2.0 * place + 2.0)), parts)
        other = read_clip(f"r/0-{place}.mp4", spec, files)
        assert (one.frames == other.frames).all()
        assert (one.timestamps, one.duration) == (other.timestamps, other.duration)


def test_a_whole_run_is_that_of_the_files(both, tmp_path, capsys):
    found = {}
    for root in both:
        format = {"data": {"format": {"class_path": "Table"}}, "stages": {"rationale": {"trainer": {"max_epochs": 1}}}}
        config = write_experiment(tmp_path / f"{root.name}.yaml", root, Path("builtin/tiny"), format)
        given = ("--config", config, "--run_root", tmp_path / "runs", "--data.cache_dir", tmp_path / root.name)
        assert main(["check", *map(str, given)]) == 0, capsys.readouterr().out
        result = fit(*given)
        assert result.code == 0, result.err
        run = tmp_path / "runs" / root.name / "rbft/seed0"
        texts = [(row["label"], row["text"]) for row in rows(run / "write/rationales.jsonl")]
        scores = [(row["label"], row["log_likelihoods"]) for row in rows(run / "predictions.jsonl")]
        weights = [path.read_bytes() for path in sorted(run.glob("*/adapter/*.safetensors"))]
        found[root.name] = (texts, scores, weights)
        assert weights
    assert found["parts"] == found["files"]

    run = tmp_path / "runs/parts/rbft/seed0"
    assert [row["video"] for row in rows(run / "predictions.jsonl")] == ["r/3.mp4#t=0,2", "r/3.mp4#t=2,4"]
    assert {row["video"] for row in rows(run / "write/rationales.jsonl")} >= {"r/0.mp4#t=2,4"}
    page = (run / "report.html").read_text()
    assert "r/0.mp4#t=" in page
    assert main(["report", str(run), "--to", str(tmp_path / "page.html")]) == 0
    assert "the video is not there any more" not in (tmp_path / "page.html").read_text()

    answers = tmp_path / "answers.jsonl"
    assert main(["predict", "--run", str(run), str(both[0] / "labels.csv"), "--to", str(answers)]) == 0
    told = {row["video"].rpartition("/")[2]: row for row in map(json.loads, answers.read_text().splitlines())}
    assert len(told) == 8
    for row in rows(run / "predictions.jsonl"):
        answer = told[row["video"].removeprefix("r/")]
        best = max(row["calibrated"] or row["probabilities"])
        assert answer["predicted"] == row["predicted"]
        assert answer["probability"] == pytest.approx(best, abs=1e-6)
    assert main(["predict", "--run", str(run), str(both[0] / "labels.csv"), "--window", "1"]) == 2
    assert "start and end" in capsys.readouterr().err
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "exported")]) == 0
