"""A training step is measured against the plain path, which has the same loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import train_step


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_rows(tmp_path: Path, family: str) -> None:
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--size", "tiny", "--families", family, "--answers", "rationales"]
    assert train_step.main(flags) == 0
    record = json.loads(out.read_text())
    assert record["benchmark"] == "train_step"
    (row,) = record["rows"]
    assert (row["case"], row["family"], row["baseline"]) == ("rationales, 8 frames", family, "plain path")
    for ratio in ("speedup", "first_epoch_speedup", "storing_ratio", "peak_memory_ratio"):
        assert row[ratio] > 0
    assert 0 <= row["max_abs_diff"] < 1e-4
