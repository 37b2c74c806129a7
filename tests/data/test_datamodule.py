"""The data module reads a data set's files, cuts the low-data split, and hands out batches of every role."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.errors import ConfigError, DataError, VideoError
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

PROMPT = Prompt("Which action?")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six videos in folders named after them."""
    folder = tmp_path_factory.mktemp("videos")
    for label in ("archery", "fencing"):
        (folder / label).mkdir()
        for number in range(6):
            # other frame counts: no two files are the same
            write_video(
                folder / label / f"{number}.mp4", num_frames=8 + number + 6 * (label == "fencing"), size=(48, 64)
            )
    return folder


@pytest.fixture(scope="module")
def processor(family_folder: Callable[[str], Path]) -> ClipProcessor:
    return ClipProcessor(str(family_folder("qwen2_5_vl")))


def module(root: Path, **settings) -> VideoDataModule:
    return VideoDataModule(str(root), **{"num_frames": 4, "shots": 2, "val_shots": 1, **settings})


def connected(root: Path, processor: ClipProcessor, accumulate: int = 1, **settings) -> VideoDataModule:
    data = module(root, **settings)
    answers = [Example(record, PROMPT, record.label) for record in data.splits.train]
    plain = {role: [Example(record, PROMPT) for record in getattr(data.splits, role)] for role in ("val", "test")}
    data.use_processor(processor)
    data.connect(3, accumulate, train=answers, predict=answers, **plain)
    return data


def test_records_classes_and_split(root):
    data = module(root)
    assert data.labels.names == ("archery", "fencing")
    assert len(data.records) == 12
    assert [len(part) for part in (data.splits.train, data.splits.val)] == [4, 2]
    parts = (*data.splits.train, *data.splits.val, *data.splits.test)
    assert len({record.id for record in parts}) == len(parts)
    assert module(root).splits == data.splits
    assert module(root, draw=1).splits != data.splits


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.root: no folder .*nothing\. Say where .*--data\.root FOLDER"):
        _ = module(tmp_path / "nothing").records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size: 0 must be at least 1"),
        ({"eval_batch_size": -1}, r"data\.eval_batch_size: -1"),
        ({"num_workers": -1}, r"data\.num_workers: -1"),
        ({"fps": 2.0}, "exactly one of num_frames and fps"),
        ({"num_frames": None}, "exactly one of num_frames and fps"),
    ],
)
def test_wrong_settings_are_named(root, settings, message):
    with pytest.raises(ConfigError, match=message):
        module(root, **settings)


def test_fingerprint_follows_videos_and_classes(root, tmp_path):
    first = module(root).fingerprint("train")
    assert module(root).fingerprint("train") == first
    assert module(root).fingerprint("test") != first
    assert module(root, num_frames=8).fingerprint("train") == first, "sampling is stated apart"
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert module(copy).fingerprint("train") == first, "where it lies does not matter"
    changed = module(copy)
    record = changed.splits.train[0]
    write_video(copy / record.path, num_frames=30, size=(48, 64))
    assert module(copy).fingerprint("train", "test") != module(root).fingerprint("train", "test")


def test_training_batches(root, processor):
    data = connected(root, processor, batch_size=3)
    batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [3, 1]
    assert sorted(i for batch in batches for i in batch.indices) == [0, 1, 2, 3]
    tokens = data.dataset("train").supervised
    assert [batch.normalizer for batch in batches] == [sum(tokens[i] for i in batch.indices) for batch in batches]
    assert data.steps_per_epoch(1) == 2
    assert data.steps_per_epoch(2) == 1
    assert connected(root, processor, accumulate=2, batch_size=1).steps_per_epoch(1) == 2


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_a_gpu_copies_from_pinned_memory(device, pinned, root, processor):
    data = connected(root, processor)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()]
    assert [loader.pin_memory for loader in loaders] == [pinned] * 4


def test_validation_test_and_prediction_keep_their_order(root, processor):
    data = connected(root, processor, eval_batch_size=2)
    for role, loader in (
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
        ("predict", data.predict_dataloader()),
    ):
        indices = [i for batch in loader for i in batch.indices]
        assert indices == list(range(len(data.dataset(role)))), role


def test_random_frames_are_for_training_only(root, processor):
    data = connected(root, processor, frames="random")
    assert data.dataset("train").spec.sampling.mode == "random"
    assert {data.dataset(role).spec.sampling.mode for role in ("val", "test", "predict")} == {"uniform"}


def order(data: VideoDataModule) -> list[int]:
    return [batch.indices[0] for batch in data.train_dataloader()]


def test_resuming_goes_on_behind_what_was_computed(root, processor):
    whole = connected(root, processor)
    loader = whole.train_dataloader()
    whole.set_epoch(2)
    expected = [batch.indices[0] for batch in loader]
    resumed = connected(root, processor)
    resumed.resume(2, 3)
    assert order(resumed) == expected[3:]


def test_epochs_have_orders_of_their_own(root, processor):
    data = connected(root, processor)
    loader = data.train_dataloader()
    orders = []
    for epoch in range(4):
        data.set_epoch(epoch)
        orders.append(tuple(batch.indices[0] for batch in loader))
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}
    assert len(set(orders)) > 1
    assert order(connected(root, processor)) == list(orders[0])


def test_workers_give_the_same_batches(root, processor):
    alone, helped = (connected(root, processor, num_workers=n, frames="random", batch_size=4) for n in (0, 1))
    one, other = next(iter(alone.train_dataloader())), next(iter(helped.train_dataloader()))
    assert one.indices == other.indices
    for mine, its in zip(one.prompts, other.prompts, strict=True):
        assert torch.equal(mine.vision["pixel_values_videos"], its.vision["pixel_values_videos"])


def test_videos_elsewhere_are_read_the_same_way_and_nothing_is_taken_along(root, processor, tmp_path):
    data = connected(root, processor)
    before = data.clip("archery/0.mp4")
    (tmp_path / "golf").mkdir()
    shutil.copy(root / "archery" / "0.mp4", tmp_path / "golf" / "0.mp4")
    other = data.at(tmp_path)
    assert torch.equal(other.clip("golf/0.mp4").frames, before.frames)
    assert [record.path for record in other.records] == ["golf/0.mp4"]
    with pytest.raises(KeyError):
        other.dataset("test")
    # the one that was asked stays where it was
    assert data.root == root and len(data.records) == 12 and len(data.dataset("test")) > 0


def test_how_long_a_video_may_be_is_a_setting(root, processor):
    video = next(record.path for record in VideoDataModule(str(root), num_frames=4).records)
    short = connected(root, processor, max_seconds=0.05)
    with pytest.raises(VideoError, match=r"over the limit of 0\.05 s; .* or raise data\.max_seconds"):
        short.clip(video)
    assert connected(root, processor, max_seconds=60).clip(video).total_num_frames > 2
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"data\.max_seconds"):
            VideoDataModule(str(root), num_frames=4, max_seconds=wrong)
