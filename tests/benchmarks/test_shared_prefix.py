"""Packed rationales are measured against rows of the same loss and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import shared_prefix


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_rows(tmp_path: Path, family: str) -> None:
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--size", "tiny", "--families", family, "--rationales", "1", "3"]
    assert shared_prefix.main(flags) == 0
    record = json.loads(out.read_text())
    assert record["benchmark"] == "shared_prefix"
    assert [row["case"] for row in record["rows"]] == ["1 rationales", "3 rationales"]
    for row in record["rows"]:
        assert (row["family"], row["baseline"]) == (family, "rows")
        assert row["speedup"] > 0
        assert 0 <= row["max_abs_diff"] < 1e-4
        assert 0 <= row["gradient_diff"] < 1e-3
    one, three = record["rows"]
    assert three["peak_memory_ratio"] < 1 < 1.5 * one["peak_memory_ratio"]
    assert three["rationale_tokens"] == three["prompt_tokens"] // 10
