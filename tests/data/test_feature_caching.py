"""The loaders take clips that were encoded before from disk: neither decoded nor processed, and never mistaken."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.support.clip_caches import two_classes
from tests.support.models import Loaded, load
from tests.support.videos import write_video
from tests.support.watch import count_opens, entries, no_warning

from rbft.data import dataset
from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example
from rbft.data.video_facts import inspect_video
from rbft.errors import ConfigError, VideoError
from rbft.video.frame_index import FrameIndex
from rbft.vlm.batch import PromptInputs
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

QUESTION = Prompt("Which action?")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def model(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"))


@pytest.fixture
def opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening of a video, once the videos are written."""
    return count_opens(monkeypatch)


def connected(
    root: Path,
    processor: ClipProcessor,
    cache: Path,
    vision: str | None = "weights",
    prompt: Prompt = QUESTION,
    **settings,
) -> VideoDataModule:
    """A data module, as one stage of a run has it; decoded clips are not kept, so that decoding shows."""
    data = VideoDataModule(str(root), cache_dir=str(cache), cache_clips=False, **{"num_frames": 4, **settings})
    examples = [Example(record, prompt, record.label) for record in data.records]
    data.use_processor(processor)
    data.connect(0, 1, train=examples, test=examples)
    data.use_vision(vision)
    return data


def prompts(loader) -> dict[int, PromptInputs]:
    return {i: prompt for batch in loader for i, prompt in zip(batch.indices, batch.prompts, strict=True)}


@torch.no_grad()
def encode(model: Loaded, data: VideoDataModule, loader) -> dict[int, torch.Tensor]:
    """The features of each clip; stores those that were not."""
    model.vlm.features = data.features
    return {i: model.vlm._encoded(prompt).features for i, prompt in sorted(prompts(loader).items())}


def hits(data: VideoDataModule) -> int:
    return sum(prompt.encoded is not None for prompt in prompts(data.test_dataloader()).values())


@pytest.fixture
def filled(root: Path, model: Loaded, tmp_path: Path, opens: list[str]) -> Path:
    """A cache folder that has the features of all four videos."""
    data = connected(root, model.processor, tmp_path / "cache")
    encode(model, data, data.test_dataloader())
    assert len(entries(data.features.folder)) == len(opens) == 4
    opens.clear()
    return tmp_path / "cache"


def test_no_epoch_and_no_stage_decodes_or_processes_a_second_time(root, model, filled, opens, monkeypatch):
    uncached = connected(root, model.processor, filled, cache_features=False)
    assert uncached.features is None
    expected = encode(model, uncached, uncached.test_dataloader())
    opens.clear()
    processor = ClipProcessor(model.processor._processor.tokenizer.name_or_path)
    monkeypatch.setattr(processor._processor, "video_processor", None)  # pixels are nobody's concern
    monkeypatch.setattr(processor, "fingerprint", model.processor.fingerprint)
    data = connected(root, processor, filled, prompt=Prompt("Another question about it?"))
    loaders = [data.train_dataloader(), data.test_dataloader()]
    with no_warning():
        for loader in [*loaders, *loaders]:
            found = encode(model, data, loader)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[i], expected[i]) for i in expected)
    assert opens == []


def test_worker_processes_read_and_the_main_one_stores(root, model, tmp_path, opens):
    settings = {"eval_batch_size": 1, "num_workers": 2}
    data = connected(root, model.processor, tmp_path, **settings)
    first = encode(model, data, data.test_dataloader())
    assert len(entries(data.features.folder)) == 4
    assert hits(connected(root, model.processor, tmp_path, **settings)) == 4
    again = encode(model, data, data.test_dataloader())
    assert all(torch.equal(again[i], first[i]) for i in range(4))
    assert opens == [], "workers decode"


@pytest.mark.parametrize(
    "change",
    [
        {"vision": "other weights"},
        {"num_frames": 5},
        {"num_frames": None, "fps": 4.0},
        {"max_pixels": 1000},
        {"max_visual_tokens": 8},
    ],
    ids=str,
)
def test_another_request_is_another_entry(root, model, filled, change):
    data = connected(root, model.processor, filled, **change)
    assert hits(data) == 0
    encode(model, data, data.test_dataloader())
    assert hits(data) == 4
    assert len(entries(data.features.folder)) == 8
    assert hits(connected(root, model.processor, filled)) == 4


def test_another_processor_is_another_entry(root, model, filled, family_folder):
    processor = ClipProcessor(str(family_folder("qwen2_5_vl")))
    assert hits(connected(root, processor, filled)) == 4
    processor._processor.video_processor.image_mean = (0.5, 0.5, 0.5)
    assert hits(connected(root, processor, filled)) == 0


def test_a_changed_video_is_never_answered_with_old_features(root, model, filled, tmp_path):
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert hits(connected(copy, model.processor, filled)) == 4, "videos go by their content, not by their place"
    shutil.copy(copy / "archery" / "0.mp4", copy / "archery" / "1.mp4")
    write_video(copy / "archery" / "0.mp4", num_frames=30, size=(48, 64))
    data = connected(copy, model.processor, filled)
    found = prompts(data.test_dataloader())
    assert [found[i].encoded is None for i in range(4)] == [True, False, False, False]


def test_features_of_other_frames_than_are_read_now_are_nobody_s(root, model, filled, monkeypatch):
    monkeypatch.setattr(FrameIndex, "retimed", property(lambda index: index.num_frames == 21))
    data = connected(root, model.processor, filled)
    assert hits(data) == 4
    data.facts = {record.path: inspect_video(record.path, root, "", 60) for record in data.records}
    for expected in (3, 4):
        data.connect(0, 1, test=[Example(record, QUESTION) for record in data.records])
        data.use_vision("weights")
        assert hits(data) == expected
        encode(model, data, data.test_dataloader())


def test_a_video_that_changes_while_it_is_decoded_is_not_kept(root, model, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    read = dataset.read_clip

    def decode_and_replace(path, *arguments, **settings):
        clip = read(path, *arguments, **settings)
        write_video(copy / path, num_frames=33, size=(48, 64))
        return clip

    monkeypatch.setattr(dataset, "read_clip", decode_and_replace)
    data = connected(copy, model.processor, tmp_path / "cache")
    encode(model, data, data.test_dataloader())
    assert entries(data.features.folder) == []


def test_a_damaged_entry_is_encoded_again(root, model, filled):
    data = connected(root, model.processor, filled)
    expected = encode(model, data, data.test_dataloader())
    entry = entries(data.features.folder)[0]
    entry.write_bytes(entry.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        found = encode(model, data, data.test_dataloader())
    assert all(torch.equal(found[i], expected[i]) for i in expected)
    assert hits(data) == 4


def test_what_lies_outside_of_the_root_is_refused_although_its_features_are_stored(root, model, filled, tmp_path):
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    data = connected(copy, model.processor, filled)
    (copy / "archery" / "0.mp4").unlink()
    (copy / "archery" / "0.mp4").symlink_to(root / "archery" / "0.mp4")
    with pytest.raises(VideoError, match="outside of the data folder"):
        hits(data)


@pytest.fixture
def nothing_kept(root: Path, model: Loaded, tmp_path: Path) -> Iterator[Callable[..., None]]:
    def check(loader: str, **settings) -> None:
        data = connected(root, model.processor, tmp_path, **settings)
        for _ in range(2):
            found = prompts(getattr(data, loader)())
            assert len(found) == 4
            assert all(prompt.encoded is None and prompt.key is None for prompt in found.values())

    yield check
    assert entries(tmp_path) == []


def test_random_training_frames_are_encoded_every_time(root, model, tmp_path, nothing_kept):
    nothing_kept("train_dataloader", frames="random")


def test_features_of_trained_weights_are_not_kept(nothing_kept):
    nothing_kept("train_dataloader", vision=None)


def test_switched_off_nothing_is_kept(nothing_kept):
    nothing_kept("test_dataloader", cache_features=False)


def test_prompts_without_a_video_have_no_features(nothing_kept):
    nothing_kept("test_dataloader", prompt=Prompt("Which action?", video=False))


def test_the_settings(root, clip_cache_folder, tmp_path):
    plain = VideoDataModule(str(root), num_frames=4).features
    assert (plain.folder, plain.max_bytes) == (clip_cache_folder / "features", 20 * 10**9)
    named = VideoDataModule(str(root), num_frames=4, cache_dir=str(tmp_path), feature_cache_gb=0.5).features
    assert isinstance(named, FeatureCache)
    assert (named.folder, named.max_bytes) == (tmp_path / "features", 10**9 // 2)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"data\.feature_cache_gb: .*data\.cache_features"):
            VideoDataModule(str(root), num_frames=4, feature_cache_gb=wrong)
