"""The decoding benchmark runs, keeps to its record, and tells wrong frames from right ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.common import cpu_seconds, median_ratio, time_in_turns
from benchmarks.exactness import Reference, decode_reference
from benchmarks.media import AWKWARD, write_video

from benchmarks import decode
from rbft.video.reader import read_frames

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode.py"
PEERS = {"decord", "torchcodec exact", "transformers pyav", "opencv grab", "opencv seek"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the script run on one case of readers, with a folder of media that does not decode."""
    folder = tmp_path_factory.mktemp("decode")
    (folder / "media").mkdir()
    (folder / "media" / "edit list.mp4").write_bytes(b"no video")
    arguments = ["--json", str(folder / "out.json"), "--media", str(folder / "media"), "--cases", "edit list"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--repeats", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rbft" in done.stdout
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


def test_the_record_keeps_to_the_contract(record):
    assert set(record) == {"benchmark", "environment", "rows"}
    assert record["benchmark"] == "decode"
    assert {"packages", "processor", "load_average", "date", "command"} <= set(record["environment"])
    assert {"av", "decord", "torchcodec", "opencv-python-headless"} <= set(record["environment"]["packages"])
    keys = set(decode.make_row("", "", ""))
    assert {"case", "frames", "reader", "speedup_vs_naive", "wrong_frames", "available", "reason"} <= keys
    assert all(set(row) == keys for row in record["rows"])


def test_every_reader_has_a_row_or_a_stated_gap(record):
    rows = {row["reader"]: row for row in record["rows"] if row["case"] == "edit list"}
    assert set(rows) == {"rbft", *PEERS}
    assert (rows["rbft"]["wrong_frames"], rows["rbft"]["frames"]) == (0, 16)
    for row in rows.values():
        assert row["available"] == (row["wrong_frames"] is not None)
        assert row["available"] or row["reason"]
    (broken,) = (row for row in record["rows"] if row["case"] == "edit list.mp4")
    assert (broken["reader"], broken["available"]) == ("reference", False)
    assert broken["reason"]


def test_speed_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "TIMED", {"small": AWKWARD["ts"]})
    assert decode.main(["--json", str(tmp_path / "out.json"), "--cases", "small", "--repeats", "1"]) == 0
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    timed = [row for row in rows if row["measure"] == "speed"]
    assert {(row["reader"], row["frames"]) for row in timed} >= {("rbft", 8), ("rbft", 16), ("rbft", 32)}
    assert all(row["speedup_vs_naive"] > 0 for row in timed if row["available"])
    assert [row["speedup_vs_naive"] for row in timed if row["reader"] == "naive pyav"] == [1, 1, 1]
    (floor,) = (row for row in rows if row["measure"] == "cpu over ffmpeg floor")
    assert floor["available"] == (floor["value"] is not None)


def test_a_first_look_that_keeps_clips_is_faster_than_looking_and_decoding(tmp_path):
    assert decode.main(["--json", str(tmp_path / "out.json"), "--cases", "first look", "--repeats", "1"]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    assert row["value"] > 1.1  # 1.65 was measured


def test_cases_that_do_not_exist_are_bad_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        decode.main(["--json", str(tmp_path / "out.json"), "--cases", "edit lisp"])
    assert stop.value.code == 2
    assert "edit list" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["edit list", "variable rate mp4", "rotated mov"])
def test_wrong_frames_are_told_by_their_content(case, tmp_path):
    path = write_video(tmp_path, case, AWKWARD[case])
    reference = decode_reference(path)
    indices = list(range(3, reference.num_frames - 1, 7))
    right = read_frames(path, indices).frames
    assert reference.judge(right, indices) == (0, False)
    assert reference.judge(right.permute(0, 2, 3, 1).numpy(), indices) == (0, False)
    tinted = (0.95 * right.numpy() + 5).astype(np.uint8)  # as another conversion of colours would give
    assert reference.judge(tinted, indices) == (0, False)
    bright = (255 * (right.numpy() / 255) ** 0.5).astype(np.uint8)  # as a mapping of HDR would
    assert reference.judge(bright, indices) == (0, False)
    assert reference.judge(read_frames(path, [index + 1 for index in indices]).frames, indices)[0] == len(indices)
    assert reference.judge(np.zeros_like(right), indices)[0] == len(indices)
    with pytest.raises(ValueError, match="gives 1 frames of"):
        reference.judge(right[:1], indices)


def test_a_missing_rotation_makes_no_frame_wrong(tmp_path):
    path = write_video(tmp_path, "rotated mov", AWKWARD["rotated mov"])
    reference = decode_reference(path)
    frames = read_frames(path, [0, 40]).frames.numpy()
    assert reference.judge(np.rot90(frames, -1, (2, 3)).copy(), [0, 40]) == (0, True)


def test_frames_of_a_still_scene_count_as_right():
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 36, 48), np.uint8)
    still = torch.from_numpy(picture).float().repeat(5, 1, 1, 1)
    assert Reference(still, still).judge(picture, [3]) == (0, False)


def test_everybody_is_measured_in_every_round():
    order = []
    contestants = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = time_in_turns(contestants, repeats=3)
    assert "".join(order) == "abccbaabccba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_processor_time_counts_children():
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert cpu_seconds() - before > 0.05


def test_the_ratio_is_that_within_rounds():
    assert median_ratio([1, 20, 3], [1, 10, 1]) == 2
