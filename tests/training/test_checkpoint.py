"""Places in a run are whole or absent, the newest whole one is found, and reading one never runs what stands in it."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch
from tests.support.disks import small_disk
from tests.support.kill_in_save import KillInSave, moments

from rbft.errors import StageError, StorageError
from rbft.files import append_jsonl, read_jsonl, write_atomic
from rbft.training.checkpoint import (
    MANIFEST,
    AtomicCheckpointIO,
    Written,
    checkpoints,
    commit,
    newest_whole,
    write_part,
)

CONTENT = {"state_dict": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "rbft": {"epoch_batches": 2}}


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.fixture
def plugin() -> AtomicCheckpointIO:
    return AtomicCheckpointIO()


@pytest.fixture
def manifest(tmp_path: Path, plugin: AtomicCheckpointIO) -> Path:
    """Three places were saved, in the epochs 1 to 3."""
    for epoch in (1, 2, 3):
        plugin.save_checkpoint({"epoch": epoch}, tmp_path / "deep" / MANIFEST)
    return tmp_path / "deep" / MANIFEST


def files(manifest: Path) -> list[str]:
    return sorted(path.name for path in manifest.parent.iterdir())


def test_what_is_saved_comes_back(plugin, tmp_path):
    path = tmp_path / "deep" / MANIFEST
    plugin.save_checkpoint(CONTENT, path)
    found = plugin.load_checkpoint(path)
    assert torch.equal(found["state_dict"]["a"], CONTENT["state_dict"]["a"])
    assert (found["epoch"], found["rbft"]) == (3, {"epoch_batches": 2})
    assert files(path) == [MANIFEST, "place-1.ckpt"]
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(path)
    assert files(path) == []


def test_the_newest_and_the_one_before_are_kept(plugin, manifest):
    assert files(manifest) == [MANIFEST, "place-2.ckpt", "place-3.ckpt"]
    assert plugin.load_checkpoint(manifest)["epoch"] == 3


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "one bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if how == "half" else b"" if how == "empty" else bytes(content))


@pytest.mark.parametrize("how", ["missing", "half", "empty", "one bit"])
def test_of_damaged_places_the_newest_whole_one_is_taken(plugin, manifest, how):
    spoil(manifest.with_name("place-3.ckpt"), how)
    with pytest.warns(UserWarning, match=r"place-3\.ckpt cannot be read .*goes on from the checkpoint before"):
        assert plugin.load_checkpoint(manifest)["epoch"] == 2
    spoil(manifest.with_name("place-2.ckpt"), how)
    with pytest.raises(
        StageError, match=rf"^{manifest.with_name('place-3.ckpt')} cannot be read .*no whole checkpoint"
    ):
        plugin.load_checkpoint(manifest)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"places": 3}', '{"places": [{"number": 1}]}', '{"places": []}', "\0", "[" * 100000]
)
def test_a_damaged_manifest_is_named(plugin, manifest, text):
    manifest.write_text(text)
    with pytest.raises(StageError, match=rf"^{manifest} cannot be read as a checkpoint .*Remove"):
        plugin.load_checkpoint(manifest)


@pytest.mark.parametrize("name", ["../secret.ckpt", "/etc/passwd", "a/../../x", "a\0b"])
def test_a_manifest_names_nothing_elsewhere(plugin, manifest, name):
    content = json.loads(manifest.read_text())
    content["places"][0]["files"] = {name: {"bytes": 1, "blake2b": "x"}}
    manifest.write_text(json.dumps(content))
    with pytest.raises(StageError, match="is not in its folder"):
        plugin.load_checkpoint(manifest)


@pytest.mark.parametrize("asked", [None, True, False])
def test_code_in_a_checkpoint_is_never_run(plugin, tmp_path, asked):
    path, marker = tmp_path / MANIFEST, tmp_path / "marker"
    written = write_part({"state_dict": {}, "x": Malicious(marker)}, tmp_path / "place-1.ckpt")
    commit(path, {"place-1.ckpt": written})
    with pytest.raises(StageError, match=r"place-1\.ckpt cannot be read as a checkpoint \(UnpicklingError\)\. Remove"):
        plugin.load_checkpoint(path, weights_only=asked)
    assert not marker.exists()
    torch.load(tmp_path / "place-1.ckpt", weights_only=False)
    assert marker.exists(), "the file must be able to do harm for this test to mean anything"
    marker.rmdir()
    for name in (MANIFEST, "place-1.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps(Malicious(marker), protocol=2))
        with pytest.raises(StageError, match="cannot be read as a checkpoint"):
            plugin.load_checkpoint(path, weights_only=asked)
    assert not marker.exists()


def test_what_killed_saves_left_is_removed_by_the_next(plugin, manifest):
    folder = manifest.parent
    for name in (".place-4.ckpt.x.tmp", "place-4.ckpt", "place-9.ckpt", ".last.json.x.tmp"):
        (folder / name).write_bytes(b"unfinished")
    (folder / "place-5").mkdir()
    (folder / "place-5" / "rank0.ckpt").touch()
    (folder / "best").mkdir()
    assert plugin.load_checkpoint(manifest)["epoch"] == 3
    plugin.save_checkpoint({"epoch": 4}, manifest)
    assert files(manifest) == ["best", MANIFEST, "place-3.ckpt", "place-4.ckpt"]
    assert plugin.load_checkpoint(manifest)["epoch"] == 4


# -- kills: a child for each moment of a save


def save(manifest: Path, epoch: int, kill: KillInSave | None = None) -> int | None:
    def work() -> None:
        if kill is not None:
            kill()
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "x": torch.arange(100.0)}, manifest)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(30)
    return process.exitcode


def test_killed_at_every_moment_of_a_save(manifest, tmp_path):
    assert save(manifest, 4, KillInSave(None, tmp_path / "moments")) == 0
    every = moments(tmp_path / "moments")
    assert {"write", "half written", "before fsync", "after replace", "before unlink"} <= {name for name, _ in every}
    epoch, new = 4, []
    for moment in every:
        assert save(manifest, epoch + 1, KillInSave(moment)) == -signal.SIGKILL, moment
        found = AtomicCheckpointIO().load_checkpoint(manifest)["epoch"]
        assert found in (epoch, epoch + 1), moment
        new.append(found == epoch + 1)
        epoch = found
    assert new == sorted(new) and 0 < sum(new) < len(new), "from one moment on, and no sooner, it is the new one"
    assert save(manifest, epoch + 1) == 0
    assert len(files(manifest)) == 3, "nothing half-written stays behind"


# -- a full disk


def refused_for_want_of_room(folder: Path, plugin: AtomicCheckpointIO, what: str) -> None:
    manifest = folder / MANIFEST
    plugin.save_checkpoint({"epoch": 1, "x": torch.zeros(50_000)}, manifest)
    append_jsonl(folder / "rows.jsonl", [{"n": 1}])
    before = files(manifest)
    told = rf"^{folder}/place-2\.ckpt: {what}: [\d,]+ bytes are needed, [\d,]+ bytes are free"
    with pytest.raises(StorageError, match=told) as error:
        plugin.save_checkpoint({"epoch": 2, "x": torch.zeros(5_000_000)}, manifest)
    assert "\n" not in str(error.value)
    assert "20,000,000 bytes are needed" in str(error.value)
    with pytest.raises(StorageError, match=rf"^{folder}/a\.txt: {what}: 30,000,000 bytes are needed"):
        write_atomic(folder / "a.txt", b"x" * 30_000_000)
    with pytest.raises(StorageError, match=rf"^{folder}/rows\.jsonl: {what}"):
        append_jsonl(folder / "rows.jsonl", [{"n": "x" * 30_000_000}])
    assert files(manifest) == before
    assert plugin.load_checkpoint(manifest)["epoch"] == 1
    assert list(read_jsonl(folder / "rows.jsonl")) == [(1, {"n": 1})]
    append_jsonl(folder / "rows.jsonl", [{"n": 2}])
    assert [row["n"] for _, row in read_jsonl(folder / "rows.jsonl")] == [1, 2]


def test_a_full_disk(plugin, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as folder:
        refused_for_want_of_room(folder, plugin, "no space left on the disk")


def test_a_limit_on_file_sizes(tmp_path, plugin):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        refused_for_want_of_room(tmp_path, plugin, r"larger than this process may write \(ulimit -f\)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_other_failures_of_a_save_leave_the_old_place_whole(plugin, manifest, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="on fire"):
        plugin.save_checkpoint({"epoch": 4}, manifest)
    monkeypatch.undo()
    assert plugin.load_checkpoint(manifest)["epoch"] == 3
    assert files(manifest) == [MANIFEST, "place-2.ckpt", "place-3.ckpt"]


def test_places_know_what_they_consist_of(manifest):
    newest, before = checkpoints(manifest)
    assert (newest.number, before.number) == (3, 2)
    assert newest_whole(manifest) == newest
    assert list(newest.files.values()) == [
        Written(manifest.with_name("place-3.ckpt").stat().st_size, newest.files["place-3.ckpt"].blake2b)
    ]
