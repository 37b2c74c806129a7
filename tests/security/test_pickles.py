"""Weights and checkpoints are read as data: code inside of them never runs, and nothing is fetched to be read."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.runs import Run
from tests.support.videos import write_video

from rbft.errors import ModelError, StageError
from rbft.files import file_digest
from rbft.training.checkpoint import MANIFEST, AtomicCheckpointIO, Written, commit
from rbft.training.module import VLMFineTuner
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import EncodedClip
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.loading import load_model
from rbft.vlm.tuning import LoRA, load_trained, save_trained

pytest_plugins = ["tests.support.run_fixtures"]


def as_torch(bomb: object, path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 0, "callbacks": bomb}, path)


def as_pickle(bomb: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(bomb))


def as_numpy(bomb: object, path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)


def file_hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


WAYS = [as_torch, as_pickle, as_numpy]
Way = Callable[[object, Path], None]


def test_the_attack_would_work(bomb: Any, marker: Path, tmp_path: Path) -> None:
    as_torch(bomb, tmp_path / "x")
    torch.load(tmp_path / "x", weights_only=False)
    assert marker.is_dir()
    marker.rmdir()


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_goes_on_from_a_checkpoint_of_others(way: Way, bomb: Any, copy: Run) -> None:
    folder = copy.folder / "rationale"
    (folder / "stage.json").unlink()
    (folder / "checkpoints").mkdir()
    content = folder / "checkpoints" / "place-1.ckpt"
    way(bomb, content)
    # an attacker who can write the one can write the hash of it beside it
    commit(content.with_name(MANIFEST), {content.name: Written(content.stat().st_size, file_hash(content))})
    result = copy.again("--stage", "rationale")
    assert "rationale: continuing where it stopped" in result.out, "the checkpoint must be looked at"
    assert result.code == 1
    assert "place-1.ckpt cannot be read as a checkpoint" in result.err
    assert "Traceback" not in result.err
    way(bomb, content.with_name(MANIFEST))
    result = copy.again("--stage", "rationale")
    assert result.code == 1
    assert "last.json cannot be read as a checkpoint" in result.err


@pytest.fixture
def adapter(tmp_path: Path, family_folder: Callable[[str], Path]) -> tuple[Any, Path]:
    """A model with the adapter it saved."""
    model = LoRA(rank=2, alpha=4).apply(load_model(str(family_folder("qwen2_5_vl")), None, "float32", None))
    save_trained(model, tmp_path / "adapter")
    load_trained(model, tmp_path / "adapter")
    return model, tmp_path / "adapter"


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_that_is_a_pickle(way: Way, bomb: Any, adapter: tuple[Any, Path]) -> None:
    model, folder = adapter
    way(bomb, folder / "adapter_model.safetensors")
    with pytest.raises(StageError, match=r"adapter_model\.safetensors is damaged"):
        load_trained(model, folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    shutil.copy(folder / "adapter_model.bin", folder / "pytorch_model.bin")
    with pytest.raises(StageError, match="holds no trained weights"):
        load_trained(model, folder)


def test_an_adapter_without_its_configuration_is_not_looked_for_elsewhere(
    adapter: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = adapter
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", lambda *_, **__: pytest.fail("the hub"))
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 5}))
    with pytest.raises(StageError, match="trained with lora_alpha 5"):
        load_trained(model, folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(StageError, match=r"adapter_config\.json is missing or no adapter's"):
        load_trained(model, folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(StageError, match=r"adapter_config\.json is missing"):
        load_trained(model, folder)


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x", "https://127.0.0.1:9/x", "s3://x/y", "hf://x/y"])
def test_neither_checkpoints_nor_adapters_are_fetched(
    place: str, adapter: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the network"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network"))
    with pytest.raises(StageError, match="cannot be read as a checkpoint"):
        AtomicCheckpointIO().load_checkpoint(place)
    with pytest.raises(StageError, match="holds no trained weights"):
        load_trained(adapter[0], Path(place))
    with pytest.raises(ModelError, match="no folder"):
        load_model(place, None, "auto", None)
    with pytest.raises(StageError, match="adapter folder"):
        VLMFineTuner.load_from_checkpoint(place)


def test_lightning_has_no_other_way_in(bomb: Any, tmp_path: Path) -> None:
    as_torch(bomb, tmp_path / "x.ckpt")
    with pytest.raises(StageError, match="adapter folder"):
        VLMFineTuner.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=False)


@pytest.mark.parametrize("way", WAYS)
def test_a_kept_clip_that_is_a_pickle(way: Way, bomb: Any, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", num_frames=8, size=(48, 64))
    sampling = FrameSampling(num_frames=4)
    fresh = ClipCache(tmp_path / "cache", 10**9, file_digest).read(video, ClipSpec(sampling))
    (entry,) = (tmp_path / "cache").iterdir()
    way(bomb, entry)
    with pytest.warns(UserWarning, match="is damaged"):
        again = ClipCache(tmp_path / "cache", 10**9, file_digest).read(video, ClipSpec(sampling))
    assert torch.equal(fresh.frames, again.frames)


@pytest.mark.parametrize("way", WAYS)
def test_kept_features_that_are_a_pickle(way: Way, bomb: Any, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", 10**9)
    clip = EncodedClip("video", torch.ones(2, 3), (), False, {}, "<video>")
    cache.store("key", clip)
    (entry,) = (tmp_path / "features").iterdir()
    way(bomb, entry)
    with pytest.warns(UserWarning, match="is damaged"):
        assert FeatureCache(tmp_path / "features", 10**9).load("key") is None
    assert not entry.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_pickled_weights_of_a_model(name: str, bomb: Any, family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_folder("qwen2_5_vl"), tmp_path / "model"))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state | {"x": bomb}, folder / name)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder), None, "auto", None)
