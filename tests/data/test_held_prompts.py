"""What the model is asked about clips with kept features is made once, and never given for another video."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.clip_caches import two_classes
from tests.support.models import Loaded, load
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.dataset import Example, ExampleDataset
from rbft.data.held_prompts import HeldPrompts
from rbft.data.sampler import Draw
from rbft.data.video_facts import VideoFacts
from rbft.errors import DataError, VideoError
from rbft.video.content import content_digest
from rbft.vlm.batch import Item
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.prompt import Prompt

FIRST = Draw(0, (0,), 1.0, 1.0)
QUESTIONS = (Prompt("Which action?"), Prompt("Why, and who?"))


@pytest.fixture(scope="module")
def model(family_folder: Callable[[str], Path]) -> Loaded:
    return load(family_folder("qwen2_5_vl"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "root").mkdir()
    return two_classes(folder)


def connected(root: Path, model: Loaded, *, known: bool = False, contrast: bool = False) -> VideoDataModule:
    """Two questions about each video; the features of all of them are on disk."""
    data = VideoDataModule(str(root), cache_dir=str(root.parent / "cache"), cache_clips=False, num_frames=4)
    data.use_processor(model.processor)
    other = data.records[1] if contrast else None
    rows = [Example(record, asked, "it", contrast=other) for record in data.records for asked in QUESTIONS]
    if known:
        data.facts = {r.path: VideoFacts(r.path, digest=content_digest(root / r.path)) for r in data.records}
    data.connect(0, 1, train=rows, val=rows, test=rows)
    data.use_vision("weights")
    model.vlm.features = data.features
    with torch.no_grad():
        for batch in data.test_dataloader():
            for prompt in batch.prompts:
                model.vlm._encoded(prompt)
    return data


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every reading of kept features."""
    seen: list[str] = []
    load_features = FeatureCache.load

    def watched(self: FeatureCache, key: str):
        seen.append(key)
        return load_features(self, key)

    monkeypatch.setattr(FeatureCache, "load", watched)
    return seen


def assert_same(items: list[Item], others: list[Item]) -> None:
    assert len(items) == len(others)
    for item, other in zip(items, others, strict=True):
        assert (item.index, item.weight, item.prompt.key) == (other.index, other.weight, other.prompt.key)
        assert torch.equal(item.prompt.ids, other.prompt.ids)
        assert torch.equal(item.prompt.encoded.features, other.prompt.encoded.features)


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_later_epoch_makes_nothing_again(root, model, made, monkeypatch, role):
    data = connected(root, model)
    rows: ExampleDataset = data.dataset(role)
    first = rows[FIRST]
    made.clear()
    monkeypatch.setattr(rows.processor, "render", None)
    again = rows[FIRST]
    assert made == []
    assert_same(again, first)
    assert again[0].prompt.encoded is again[1].prompt.encoded, "the clip is computed once for both questions"
    weighed = rows[FIRST._replace(weight=0.0, normalizer=7.0)]
    assert [item.weight for item in weighed] == [0.0, 0.0] and weighed[0].normalizer == 7.0


def test_other_rows_are_read_once_and_not_held(root, model, made):
    rows = connected(root, model).dataset("test")
    assert_same(rows[FIRST], rows[FIRST])
    assert len(made) >= 2


def test_what_was_given_can_be_written_to(root, model):
    rows = connected(root, model).dataset("train")
    rows[FIRST]
    expected = [item.prompt.each(torch.clone) for item in rows[FIRST]]
    for _ in range(2):
        given = rows[FIRST]
        for item, prompt in zip(given, expected, strict=True):
            assert torch.equal(item.prompt.ids, prompt.ids)
            assert torch.equal(item.prompt.encoded.features, prompt.encoded.features)
        given[0].prompt.ids.zero_()
        given[0].prompt.encoded.features.zero_()


def test_the_video_to_compare_with_is_held_too(root, model, made):
    rows = connected(root, model, contrast=True).dataset("train")
    first = rows[FIRST]
    made.clear()
    again = rows[FIRST]
    assert made == []
    assert all(item.prompt.other.video == item.prompt.other.video != item.prompt.video for item in again)
    assert torch.equal(again[1].prompt.other.encoded.features, first[1].prompt.other.encoded.features)
    # a change of that video alone
    write_video(root / rows.examples[0].contrast.path, num_frames=30, size=(48, 64))
    assert rows[FIRST][1].prompt.other.encoded is None


def test_a_video_that_changed_is_read_anew(root, model):
    data = connected(root, model)
    rows = data.dataset("train")
    before = rows[FIRST][0].prompt
    write_video(root / rows.examples[0].record.path, num_frames=30, size=(48, 64))
    after = rows[FIRST][0].prompt
    assert after.encoded is None and after.key not in (None, before.key)


def test_a_video_that_was_replaced_while_the_run_goes_is_refused(root, model):
    rows = connected(root, model, known=True).dataset("train")
    path, other = (rows.examples[i].record.path for i in (0, 2))
    assert rows[FIRST][0].prompt.encoded is not None
    shutil.copy(root / other, root / path)
    with pytest.raises(DataError, match="was replaced while the run was going"):
        rows[FIRST]


def test_what_came_to_lie_outside_of_the_root_is_refused(root, model):
    rows = connected(root, model).dataset("train")
    path = root / rows.examples[0].record.path
    rows[FIRST]
    outside = Path(shutil.move(path, root.parent / "outside.mp4"))
    with pytest.raises(VideoError, match="no such file"):
        rows[FIRST]
    path.symlink_to(outside)
    with pytest.raises(VideoError, match="outside of the data folder"):
        rows[FIRST]


def test_other_vision_weights_are_other_features(root, model):
    data = connected(root, model)
    rows = data.dataset("train")
    assert rows[FIRST][0].prompt.encoded is not None
    data.use_vision("other weights")
    assert rows[FIRST][0].prompt.encoded is None
    data.use_vision(None)
    assert rows[FIRST][0].prompt.key is None


def test_no_more_is_held_than_there_is_room_for(root, model):
    prompts = [item.prompt for item in connected(root, model).dataset("train")[FIRST]]
    sizes = []
    prompts[0].each(lambda tensor: sizes.append(tensor.nbytes) or tensor)
    replace(prompts[1], encoded=None).each(lambda tensor: sizes.append(tensor.nbytes) or tensor)
    held = HeldPrompts(2 * sum(sizes))
    for clip in range(3):
        held.store(clip, ("key",), prompts)
    assert [held.load(clip, ("key",)) is None for clip in range(3)] == [False, False, True]
    held.store(0, ("changed",), prompts)
    assert held.load(0, ("key",)) is None and held.load(0, ("changed",)) is not None
    assert HeldPrompts(0).load(0, ("key",)) is None
