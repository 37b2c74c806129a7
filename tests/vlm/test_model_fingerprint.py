"""Models are told apart by what their folder holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rbft.vlm import loading
from rbft.vlm.loading import model_fingerprint


def test_models_are_told_apart_by_their_files(family_folder: Callable[[str], Path], tmp_path):
    source = family_folder("qwen2_vl")
    first = model_fingerprint(str(source))
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    assert model_fingerprint(str(copy)) == first, "where it lies does not matter"
    assert model_fingerprint(str(family_folder("qwen2_5_vl"))) != first
    for name in ("chat_template.jinja", "model.safetensors", "config.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert model_fingerprint(str(copy)) != first, name
        (copy / name).write_bytes(content)
    assert model_fingerprint(str(copy)) == first


def test_large_weights_are_told_apart_by_size(family_folder: Callable[[str], Path], tmp_path, monkeypatch):
    copy = Path(shutil.copytree(family_folder("qwen2_vl"), tmp_path / "copy"))
    monkeypatch.setattr(loading, "_WHOLE_FILE_BYTES", 10)
    first = model_fingerprint(str(copy))
    with (copy / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    assert model_fingerprint(str(copy)) != first


def test_hub_models_are_named():
    assert model_fingerprint("Qwen/Qwen3-VL-2B-Instruct") == "hub:Qwen/Qwen3-VL-2B-Instruct"
