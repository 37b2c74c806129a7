"""What a stage was made from: fingerprints follow every input, and outputs that changed are refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rbft.errors import StageError
from rbft.runs import stage_record as lineage
from rbft.runs.stage_record import (
    StageRecord,
    changed_keys,
    fingerprint,
    hash_outputs,
    read_record,
    verify_outputs,
    write_record,
)

INPUTS = {"kind": "test", "seed": 0, "model": {"vlm": "builtin/tiny", "optim": {"lr": 1e-4}}, "weights": None}


def record(**changes) -> StageRecord:
    made = StageRecord("test", "test", fingerprint(INPUTS), INPUTS, {}, 1.5, {"test/accuracy": 0.5})
    return dataclasses.replace(made, **changes)


def test_fingerprints_follow_values_not_their_order():
    assert (
        fingerprint(INPUTS)
        == fingerprint(dict(reversed(INPUTS.items())))
        == fingerprint(json.loads(json.dumps(INPUTS)))
    )
    others = [INPUTS | {"seed": 1}, INPUTS | {"weights": "x"}, INPUTS | {"model": {"vlm": "builtin/tiny"}}]
    assert len({fingerprint(inputs) for inputs in (INPUTS, *others)}) == 4


def test_fingerprints_follow_the_version_of_outputs(monkeypatch):
    before = fingerprint(INPUTS)
    monkeypatch.setattr(lineage, "SCHEMA", lineage.SCHEMA + 1)
    assert fingerprint(INPUTS) != before


def test_changed_keys_are_dotted():
    new = {"kind": "test", "seed": 1, "model": {"vlm": "builtin/tiny", "optim": {"lr": 1e-3, "eps": 1}}, "more": 1}
    assert changed_keys(INPUTS, new) == ["model.optim.eps", "model.optim.lr", "more", "seed"]
    assert changed_keys(INPUTS, INPUTS) == []
    assert changed_keys({"a": {"b": 1}}, {"a": 2}) == ["a"]


def test_records_come_back(tmp_path):
    assert read_record(tmp_path) is None
    write_record(tmp_path / "test", record())
    assert read_record(tmp_path / "test") == record()


@pytest.mark.parametrize("change", [{"more": 1}, {"stage": ...}])
def test_records_of_another_version_are_refused(tmp_path, change):
    content = {**dataclasses.asdict(record()), **change}
    content = {key: value for key, value in content.items() if value is not ...}
    (tmp_path / "stage.json").write_text(json.dumps(content))
    with pytest.raises(StageError, match=r"stage\.json is not a stage record of this version .*--restart"):
        read_record(tmp_path)


def test_outputs_are_verified_file_by_file(tmp_path):
    (tmp_path / "adapter" / "deep").mkdir(parents=True)
    files = {"adapter/deep/b.bin": b"b", "adapter/a.bin": b"a", "metrics.json": b"{}"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "other").write_bytes(b"not an output")
    outputs = hash_outputs(tmp_path, ["adapter", "metrics.json"])
    assert set(outputs) == set(files)
    done = record(outputs=outputs)
    verify_outputs(tmp_path, done)
    (tmp_path / "other").unlink()
    verify_outputs(tmp_path, done)
    for name, content in files.items():
        (tmp_path / name).write_bytes(b"changed")
        with pytest.raises(StageError, match=rf"{name} was changed after .*--stage test --restart"):
            verify_outputs(tmp_path, done)
        (tmp_path / name).unlink()
        with pytest.raises(StageError, match=rf"{name} is missing, though the stage 'test' finished"):
            verify_outputs(tmp_path, done)
        (tmp_path / name).write_bytes(content)
    verify_outputs(tmp_path, done)


def test_a_name_that_can_be_no_file_is_missing(tmp_path):
    with pytest.raises(StageError, match="is missing, though the stage 'test' finished"):
        verify_outputs(tmp_path, record(outputs={"x" * 300: "0"}))
