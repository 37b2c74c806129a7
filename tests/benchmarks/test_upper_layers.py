"""A step of the upper layers is measured against all layers; what was kept gives the loss of computing it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.shapes import SHAPES

from benchmarks import upper_layers


def test_rows(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--size", "tiny", "--families", "qwen2_5_vl", "--answers", "labels"]
    assert upper_layers.main(flags) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["case"], row["layers"], row["baseline"]) == ("labels, 8 frames", 0.5, "plain path")
    for ratio in ("speedup", "first_epoch", "computed", "all_layers", "peak_memory_ratio"):
        assert row[ratio] > 0
    assert row["bound"] >= row["speedup"] / 2
    assert 0 <= row["max_abs_diff"] < 1e-4


@pytest.mark.slow
def test_a_model_of_published_dimensions_takes_the_place_of_the_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SHAPES["SmolVLM2-256M"]
    text = {**small.text, "num_hidden_layers": 2, "vocab_size": 2000}
    shape = replace(small, text=text, vision={**small.vision, "num_hidden_layers": 1})
    monkeypatch.setitem(SHAPES, "SmolVLM2-256M", shape)
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--shapes", "SmolVLM2-256M", "--answers", "labels", "--short"]
    assert upper_layers.main(flags) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["family"], row["first_epoch"], row["computed"]) == ("SmolVLM2-256M", None, None)
    assert row["speedup"] > 0 and row["max_abs_diff"] < 1e-4
