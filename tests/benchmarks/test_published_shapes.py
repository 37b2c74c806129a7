"""Published dimensions give the published numbers of weights, and the benchmark of them runs small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.shapes import SHAPES, write_shape

from benchmarks import published_shapes
from rbft.vlm.cost import model_size
from rbft.vlm.tuning import FullFineTuning


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("SmolVLM2-256M", 256),
        ("SmolVLM2-500M", 507),
        ("LLaVA-OneVision-0.5B", 894),
        ("InternVL3-1B", 938),
        ("Qwen3-VL-2B", 2128),
    ],
)
def test_as_many_weights_as_published(tmp_path: Path, name: str, millions: int) -> None:
    folder = write_shape(name, tmp_path, weights=False)
    size = model_size(str(folder), None, "auto", None, FullFineTuning())
    assert size.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SHAPES["SmolVLM2-256M"]
    text = {**small.text, "num_hidden_layers": 2, "vocab_size": 2000}
    shape = type(small)(
        small.family, text, {**small.vision, "num_hidden_layers": 1}, small.fit, small.whole, "bfloat16"
    )
    monkeypatch.setitem(SHAPES, "SmolVLM2-256M", shape)
    out = tmp_path / "record.json"
    assert published_shapes.main(["--json", str(out), "--models", "SmolVLM2-256M", "--labels", "2", "5"]) == 0
    rows = {row["case"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["loading as auto"]["measured_mb"] < rows["loading as auto"]["weights_mb"]
    assert rows["prefix"]["prefixes"] == 1
    for case in ("encode", "scoring 5 labels", "scoring 5 labels, a row each", "LoRA step, kept features"):
        assert rows[case]["measured_mb"] > 0 and rows[case]["ratio"] > 0.5
    assert rows["merge, save and reload"]["max_abs_diff"] < 1
