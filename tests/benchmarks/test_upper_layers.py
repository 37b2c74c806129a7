"""A step of the upper layers is measured against all layers; what was kept gives the loss of computing it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import upper_layers


def test_rows(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--size", "tiny", "--families", "qwen2_5_vl", "--answers", "labels"]
    assert upper_layers.main(flags) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["case"], row["layers"], row["baseline"]) == ("labels, 8 frames", 0.5, "plain path")
    for ratio in ("speedup", "first_epoch", "computed", "all_layers", "peak_memory_ratio"):
        assert row[ratio] > 0
    assert 0 <= row["max_abs_diff"] < 1e-4
