"""The benchmark of full-size models runs small on a CPU, and says so where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.models import describe_model, random_model, write_published

from benchmarks import gpu, gpu_smoke
from rbft.vlm.processing import ClipProcessor

SMALL = ["--device", "cpu", "--sizes", "tiny", "--repeats", "1", "--batch", "2", "--new_tokens", "3", "--labels", "3"]
SMALL += ["--smoke_seconds", "0"]


def test_rows(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    assert gpu.main(["--json", str(out), *SMALL]) == 0
    record = json.loads(out.read_text())
    assert record["environment"]["matrix_teraflops"] > 0
    rows = {(row["case"], row["baseline"]): row for row in record["rows"]}
    training = [("training, LoRA, tiny", "plain path"), ("training, full, tiny", "plain path")]
    writing = [("writing, tiny", "plain path")]
    scoring = [("scoring 3 labels, tiny", "naive"), ("scoring 3 labels, tiny", "generate and parse")]
    assert list(rows) == training + writing + scoring
    assert all(row["available"] and row["speedup"] > 0 for row in rows.values())
    for key in training:
        assert 0 <= rows[key]["max_abs_diff"] < 1e-4
        for figure in ("samples_per_second", "utilisation", "baseline_utilisation", "peak_memory_ratio"):
            assert rows[key][figure] > 0
    assert rows[writing[0]]["tokens_per_second"] > 0
    assert 0 <= rows[scoring[0]]["max_abs_diff"] < 1e-3
    assert rows[scoring[1]]["videos_per_second"] > 0


def test_what_was_found_is_kept_when_something_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "record.json"

    def full(*_: object) -> list[object]:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    def broken(*_: object) -> list[object]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(gpu, "train_rows", full)
    monkeypatch.setattr(gpu, "write_rows", broken)
    with pytest.raises(RuntimeError, match="assert"):
        gpu.main(["--json", str(out), *SMALL])
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["training, LoRA, tiny", "training, full, tiny"]
    assert all("ALLOC_FAILED" in row["reason"] for row in rows)


def test_when_the_time_is_over_nothing_is_begun(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    assert gpu.main(["--json", str(out), *SMALL[:-1], "90", "--minutes", "0"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == len(gpu_smoke.CASES) + 2 + 4
    assert {row["reason"] for row in rows} == {"no time was left"}


@pytest.mark.slow
def test_every_stage_runs_small(tmp_path: Path) -> None:
    rows = list(gpu_smoke.smoke("cpu", 600, tmp_path))
    assert [row["case"] for row in rows if not row["available"]] == []
    assert rows[-1]["case"] == "smoke: export" and (tmp_path / "export" / "config.json").is_file()


def test_without_a_gpu_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "record.json"
    assert gpu.main(["--json", str(out)]) == 2
    assert "no GPU" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("shape", "billions"), [("3B", 3.75), ("7B", 8.29)])
def test_published_shapes(tmp_path: Path, shape: str, billions: float) -> None:
    folder = write_published(shape, tmp_path)
    model = random_model(folder, "meta", torch.bfloat16)
    parameters = describe_model(model)
    assert sum(parameters.values()) / 1e9 == pytest.approx(billions, abs=0.005)
    processor = ClipProcessor(str(folder))
    # two frames share the tokens of cells of 28 x 28 pixels
    assert processor.clip_cost(8, *gpu.FRAME).visual_tokens == 4 * 12 * 16
