"""Scoring all labels at once is measured against peers that give the same scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.memory import peak_bytes

from benchmarks import score_labels


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_rows(tmp_path: Path, family: str) -> None:
    out = tmp_path / "record.json"
    flags = ["--json", str(out), "--repeats", "1", "--size", "tiny", "--labels", "3", "--families", family]
    assert score_labels.main(flags) == 0
    record = json.loads(out.read_text())
    assert record["benchmark"] == "score_labels"
    rows = {row["baseline"]: row for row in record["rows"]}
    assert set(rows) == {"naive", "rows behind a cache", "generate and parse"}
    for row in rows.values():
        assert (row["case"], row["family"]) == ("3 labels", family)
        assert row["speedup"] > 0
        assert row["bound"] > 0 and row["kept_features_speedup"] > 0
        assert row["peak_memory_ratio"] > 0
        assert row["same_best_label"]
    for peer in ("naive", "rows behind a cache"):
        assert 0 <= rows[peer]["max_abs_diff"] < 1e-3
    assert rows["generate and parse"]["max_abs_diff"] is None


def test_peak_memory_is_what_was_held_at_once() -> None:
    number = 1 << 18  # of a mebibyte

    def compute() -> None:
        for _ in range(3):
            first, second = torch.ones(number), torch.ones(number)
            del first
            third = torch.ones(number // 2)
            del second, third

    assert peak_bytes(compute) == 2 << 20


def test_peak_memory_knows_nothing_of_what_was_there_before() -> None:
    before = [torch.ones(1 << 20)]

    def compute() -> torch.Tensor:
        before.clear()
        return torch.ones(1 << 10)

    assert peak_bytes(compute) == 4 << 10
