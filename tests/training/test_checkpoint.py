"""Checkpoints are whole or absent, and reading one never runs what stands in it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from rbft.errors import StageError
from rbft.training.checkpoint import AtomicCheckpointIO

CONTENT = {"state_dict": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "rbft": {"epoch_batches": 2}}


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.fixture
def plugin() -> AtomicCheckpointIO:
    return AtomicCheckpointIO()


def test_what_is_saved_comes_back(plugin, tmp_path):
    path = tmp_path / "deep" / "last.ckpt"
    plugin.save_checkpoint(CONTENT, path)
    found = plugin.load_checkpoint(path)
    assert torch.equal(found["state_dict"]["a"], CONTENT["state_dict"]["a"])
    assert (found["epoch"], found["rbft"]) == (3, {"epoch_batches": 2})
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(path)
    assert not path.exists()


@pytest.mark.parametrize("asked", [None, True, False])
def test_code_in_a_checkpoint_is_never_run(plugin, tmp_path, asked):
    path, marker = tmp_path / "last.ckpt", tmp_path / "marker"
    torch.save({"state_dict": {}, "x": Malicious(marker)}, path)
    with pytest.raises(StageError, match=r"last\.ckpt cannot be read as a checkpoint \(UnpicklingError\)\. Remove it"):
        plugin.load_checkpoint(path, weights_only=asked)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file must be able to do harm for this test to mean anything"
    marker.rmdir()
    path.write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(StageError, match="cannot be read as a checkpoint"):
        plugin.load_checkpoint(path, weights_only=asked)
    assert not marker.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"no checkpoint"])
def test_damaged_files_are_named(plugin, tmp_path, damage):
    path = tmp_path / "last.ckpt"
    plugin.save_checkpoint(CONTENT, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StageError, match=rf"^{path} cannot be read as a checkpoint"):
        plugin.load_checkpoint(path)


def test_a_failing_save_leaves_the_old_checkpoint_whole(plugin, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    plugin.save_checkpoint(CONTENT, path)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        plugin.save_checkpoint({"epoch": 4}, path)
    monkeypatch.undo()
    assert plugin.load_checkpoint(path)["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "nothing half-written stays behind"
