"""The loaders decode a clip once for all epochs, stages and processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.clip_caches import two_classes
from tests.support.watch import count_opens, entries, no_warning

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.errors import ConfigError
from rbft.video.clip import read_clip
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def processor(family_folder: Callable[[str], Path]) -> ClipProcessor:
    return ClipProcessor(str(family_folder("qwen2_5_vl")))


@pytest.fixture
def opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening of a video, once the videos are written."""
    return count_opens(monkeypatch)


def connected(root: Path, processor: ClipProcessor, **settings) -> VideoDataModule:
    """A data module, as one stage of a run has it, with all videos in training and in test."""
    data = VideoDataModule(str(root), num_frames=4, **settings)
    examples = [Example(record, Prompt("Which action?"), record.label) for record in data.records]
    data.use_processor(processor)
    data.connect(0, 1, train=examples, test=examples)
    return data


def pixels(loader) -> dict[int, torch.Tensor]:
    return {
        index: prompt.vision["pixel_values_videos"]
        for batch in loader
        for index, prompt in zip(batch.indices, batch.prompts, strict=True)
    }


def equal(left: dict[int, torch.Tensor], right: dict[int, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[index], right[index]) for index in left)


def test_no_epoch_and_no_stage_decodes_a_second_time(root, processor, tmp_path, opens):
    first = connected(root, processor, cache_dir=str(tmp_path))
    loader = first.train_dataloader()
    epoch = pixels(loader)
    assert len(opens) == len(epoch) == 4
    opens.clear()
    with no_warning():
        assert equal(pixels(loader), epoch)
        assert equal(pixels(connected(root, processor, cache_dir=str(tmp_path)).test_dataloader()), epoch)
    assert opens == []
    decoded = connected(root, processor, cache_clips=False)
    assert decoded.cache is None
    assert equal(pixels(decoded.train_dataloader()), epoch)
    assert equal(pixels(decoded.train_dataloader()), epoch)
    assert len(opens) == 8


def test_people_see_the_frames_that_were_scored_and_nothing_is_decoded_for_them(root, processor, tmp_path, opens):
    data = connected(root, processor, cache_dir=str(tmp_path), max_pixels=2048)
    pixels(data.test_dataloader())
    opens.clear()
    seen = data.clip(data.records[0].path)
    assert opens == []
    assert torch.equal(seen.frames, read_clip(data.records[0].path, data.dataset("test").spec, root).frames)


def test_worker_processes_share_the_folder(root, processor, tmp_path):
    settings = {"cache_dir": str(tmp_path), "eval_batch_size": 1}
    expected = pixels(connected(root, processor, cache_clips=False).test_dataloader())
    assert equal(pixels(connected(root, processor, num_workers=2, **settings).test_dataloader()), expected)
    assert len(entries(tmp_path)) == 4
    assert equal(pixels(connected(root, processor, **settings).test_dataloader()), expected)
    assert len(entries(tmp_path)) == 4


def test_random_training_frames_fill_no_disk(root, processor, tmp_path):
    data = connected(root, processor, cache_dir=str(tmp_path), frames="random")
    pixels(data.train_dataloader())
    assert entries(tmp_path) == []
    pixels(data.test_dataloader())
    assert len(entries(tmp_path)) == 4


def test_the_settings(root, clip_cache_folder, tmp_path):
    plain = VideoDataModule(str(root), num_frames=4).cache
    assert (plain.folder, plain.max_bytes) == (clip_cache_folder, 20 * 10**9)
    named = VideoDataModule(str(root), num_frames=4, cache_dir=str(tmp_path), cache_gb=0.5).cache
    assert (named.folder, named.max_bytes) == (tmp_path, 10**9 // 2)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"data\.cache_gb: .*data\.cache_clips"):
            VideoDataModule(str(root), num_frames=4, cache_gb=wrong)
